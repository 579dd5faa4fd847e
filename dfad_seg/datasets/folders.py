"""Any data set in the folder layout of MMSegmentation, described by options alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfad_seg.common.errors import InputError
from dfad_seg.datasets.base import Pair, SegmentationDataset, Transform, pair_up, read_index_mask
from dfad_seg.datasets.listing import fill, found_splits, list_tree, read_listing, require_listed
from dfad_seg.datasets.metainfo import MetaInfo, class_colours

Colour = tuple[int, int, int]
IGNORE = 255


class Folders(SegmentationDataset):
    """Images `img_dir/**/NAME<img_suffix>` with index masks `ann_dir/**/NAME<seg_map_suffix>`, both below `root`.

    The semantics are those of MMSegmentation 1.x (`BaseSegDataset`, `LoadAnnotations`):
      `split_file` lists the NAMEs of a split, one per line, sub-folders included; without it all images count;
      `reduce_zero_label`: value 0 becomes ignored and the others fall by one (255 stays ignored);
      `label_map` {old: new} comes after that, so its keys are values already reduced; 255 as new is ignored.
    Values that end neither below `len(classes)` nor at 255 are an error, where MMSegmentation is silent.

    `<split>` in `img_dir`, `ann_dir` and `split_file` stands for the split's name.  Where none of them has it, the
    set has one split, named `all`.  `palette` defaults to Pascal VOC's colours.
    """

    spare_masks = True

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        transform: Transform | None = None,
        img_dir: str,
        ann_dir: str,
        classes: Sequence[str],
        palette: Sequence[Colour] | None = None,
        img_suffix: str = ".jpg",
        seg_map_suffix: str = ".png",
        split_file: str | None = None,
        reduce_zero_label: bool = False,
        label_map: Mapping[int, int] | None = None,
    ) -> None:
        self.img_dir, self.ann_dir, self.split_file = img_dir, ann_dir, split_file
        self.img_suffix, self.seg_map_suffix = img_suffix, seg_map_suffix
        self._table = label_table(reduce_zero_label, label_map or {})
        self.metainfo = _metainfo(classes, palette, self._table)
        folder = Path(root).expanduser()
        if folder.is_dir():
            self.splits = found_splits(folder, _templates(img_dir, ann_dir, split_file))
        super().__init__(root, split, transform=transform)

    @classmethod
    def describe(cls, root: str | Path, **options: Any) -> MetaInfo:
        table = label_table(options.get("reduce_zero_label", False), options.get("label_map") or {})
        return _metainfo(options["classes"], options.get("palette"), table)

    @classmethod
    def present_splits(cls, root: str | Path, **options: Any) -> tuple[str, ...]:
        templates = _templates(options["img_dir"], options["ann_dir"], options.get("split_file"))
        return found_splits(Path(root).expanduser(), templates)

    def find_pairs(self) -> list[Pair]:
        image_folder = self.root / fill(self.img_dir, self.split)
        mask_folder = self.root / fill(self.ann_dir, self.split)
        images = list_tree(image_folder, self.img_suffix, "image")
        masks = list_tree(mask_folder, self.seg_map_suffix, "mask")
        if not images:
            raise InputError(f"the image folder {image_folder} holds no files that end with '{self.img_suffix}'.")
        if self.split_file is not None:
            listing = self.root / fill(self.split_file, self.split)
            names = read_listing(listing)
            require_listed(names, images, listing, image_folder)
            images = {name: images[name] for name in names}
        return pair_up(images, masks, mask_folder)

    def read_labels(self, path: Path) -> np.ndarray:
        return self._table[read_index_mask(path)]


def label_table(reduce_zero_label: bool, label_map: Mapping[int, int]) -> np.ndarray:
    """The label of each of the 256 values of a mask file, uint8 (256,), by MMSegmentation 1.x's rules.

    Raises `InputError` if `label_map` has keys or values outside 0-255.
    """
    wrong = sorted({value for pair in label_map.items() for value in pair if not 0 <= value <= 255})
    if wrong:
        raise InputError(f"label_map holds {wrong[0]}; labels are 0-255, and 255 is ignored.")
    table = np.arange(256)
    if reduce_zero_label:
        table = np.where((table == 0) | (table == 255), IGNORE, table - 1)
    return np.array([label_map.get(int(value), int(value)) for value in table], np.uint8)


def _metainfo(classes: Sequence[str], palette: Sequence[Colour] | None, table: np.ndarray) -> MetaInfo:
    plain = MetaInfo(classes=tuple(classes), palette=class_colours(palette, classes))
    values = [np.flatnonzero(table == label) for label in range(plain.num_classes)]
    unreached = [name for name, found in zip(plain.classes, values, strict=True) if not found.size]
    if unreached:
        raise InputError(
            f"no value of a mask file becomes class '{unreached[0]}': label_map moves its value to another class. "
            "Leave the class out, or correct label_map."
        )
    return MetaInfo(plain.classes, plain.palette, file_ids=tuple(int(found[0]) for found in values))


def _templates(img_dir: str, ann_dir: str, split_file: str | None) -> list[str]:
    return [path for path in (split_file, ann_dir, img_dir) if path is not None]
