"""Any data set in the folder layout of MMSegmentation, described by options alone."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from dfad_seg.common.errors import InputError
from dfad_seg.common.labels import IGNORED, mapped
from dfad_seg.common.values import Byte, FileName, options
from dfad_seg.datasets.base import MetaInfo, OwnImages, Pair, SegmentationDataset, Transform, pair_up, require_folder
from dfad_seg.datasets.listing import SPLIT, found_splits, list_files, read_listing, require_listed

Rgb = tuple[Byte, Byte, Byte]


@options
class FoldersOptions(OwnImages):
    """Paths are relative to `root`, and `<split>` in them stands for the split's name."""

    img_dir: FileName
    """The images, sub-folders included."""
    ann_dir: FileName | None = None
    """The index masks. Without it no image has labels: a student is compared with its teacher, not with the truth."""
    classes: tuple[str, ...] = ()
    """The names of the labels 0, 1, ...; needed with `ann_dir`."""
    palette: tuple[Rgb, ...] | None = None
    """One [red, green, blue] per class; default: the colours of Pascal VOC."""
    img_suffix: FileName = ".jpg"
    """The end of the image files' names, in upper or lower case; .jpg and .jpeg are one."""
    seg_map_suffix: FileName = ".png"
    """The end of the mask files' names."""
    split_file: FileName | None = None
    """A list of the image names without suffix, one per line, sub-folders included; default: all images."""
    reduce_zero_label: bool = False
    """Value 0 is ignored and the others count from 1."""
    label_map: dict[Byte, Byte] | None = None
    """{old: new}, after reduce_zero_label; 255 is ignored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ann_dir is not None and not self.classes:
            raise ValueError("classes: this key is needed with ann_dir")


class Folders(SegmentationDataset):
    """Images `img_dir/**/NAME<img_suffix>` with index masks `ann_dir/**/NAME<seg_map_suffix>`, both below `root`.

    The semantics of the options are those of MMSegmentation 1.x (`BaseSegDataset`, `LoadAnnotations`). Values that end
    neither below `len(classes)` nor at 255 are an error, where MMSegmentation is silent.

    Where none of the paths has `<split>`, the set has one split, named `all`.
    """

    options: FoldersOptions

    def __init__(self, options: FoldersOptions, split: str, *, transform: Transform | None = None) -> None:
        self._table = label_table(options.reduce_zero_label, options.label_map or {})
        self.metainfo = self.describe(options)
        self.own_palette = options.palette is not None
        self.splits = self.present_splits(options)
        self.labelled = self.mask_files = options.ann_dir is not None
        super().__init__(options, split, transform=transform)

    @classmethod
    def describe(cls, options: FoldersOptions) -> MetaInfo:
        names = options.classes or ("not named",)  # without labels nothing asks
        plain = MetaInfo(names, options.palette)  # type: ignore[arg-type]
        table = label_table(options.reduce_zero_label, options.label_map or {})
        values = [np.flatnonzero(table == label) for label in range(plain.num_classes)]
        unreached = [name for name, found in zip(names, values, strict=True) if not found.size]
        if unreached:
            raise InputError(
                f"no value of a mask file becomes class '{unreached[0]}': label_map moves its value to another class. "
                "Leave the class out, or correct label_map."
            )
        return replace(plain, file_ids=tuple(int(found[0]) for found in values))

    @classmethod
    def present_splits(cls, options: FoldersOptions) -> tuple[str, ...]:
        paths = [path for path in (options.split_file, options.ann_dir, options.img_dir) if path is not None]
        return found_splits(require_folder(options.root), paths)

    def find_pairs(self) -> list[Pair]:
        chosen = self.options
        image_folder = self.root / chosen.img_dir.replace(SPLIT, self.split)
        mask_folder, masks = image_folder, None
        if chosen.ann_dir is not None:
            mask_folder = self.root / chosen.ann_dir.replace(SPLIT, self.split)
            masks = list_files(mask_folder, (chosen.seg_map_suffix,), "mask", option="seg_map_suffix")
        images = list_files(
            image_folder,
            (chosen.img_suffix,),
            "image",
            notes=self.notes,
            beside=set((masks or {}).values()),  # masks may lie among the images
            option="img_suffix",
        )
        if chosen.split_file is not None:
            listing = self.root / chosen.split_file.replace(SPLIT, self.split)
            names = read_listing(listing)
            require_listed(names, images, listing, image_folder)
            images = {name: images[name] for name in names}
        return pair_up(images, images if masks is None else masks, mask_folder)

    def load_labels(self, index: int) -> np.ndarray:
        if self.labelled:
            return super().load_labels(index)
        return np.full(self.load_photo(index).upright().shape[:2], IGNORED, np.uint8)

    def read_labels(self, path: Path) -> np.ndarray:
        return mapped(super().read_labels(path), self._table)


def label_table(reduce_zero_label: bool, label_map: Mapping[int, int]) -> np.ndarray:
    """The label of each of the 256 values of a mask file, uint8 (256,), by MMSegmentation 1.x's rules."""
    table = np.arange(256)
    if reduce_zero_label:
        table = np.where((table == 0) | (table == 255), IGNORED, table - 1)
    return np.array([label_map.get(int(value), int(value)) for value in table], np.uint8)
