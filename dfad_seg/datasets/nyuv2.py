"""NYU Depth V2 (Silberman et al. 2012), colour images with 13 classes (Couprie et al. 2013)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_text, write_whole
from dfad_seg.common.images import Photo
from dfad_seg.common.palette import bit_palette
from dfad_seg.datasets.base import Pair, SegmentationDataset, pair_up
from dfad_seg.datasets.listing import list_images, read_listing, require_listed
from dfad_seg.datasets.metainfo import NYUV2_13
from dfad_seg.datasets.nyuv2_files import LABELLED, SPLITS, NyuFiles, read_splits

SPLIT_SIZES = {"train": 795, "test": 654}
"""Images per split of the published set."""

IMAGES, MASKS = "image", "label13"
_NO_CODE = 254
_CODES = np.array([255, *range(13), *[_NO_CODE] * 242], np.uint8)  # file code -> label


class NyuV2(SegmentationDataset):
    """NYUv2 with 13 classes in one of three layouts, told apart by what `root` holds.

    Official files: `nyu_depth_v2_labeled.mat`, `classMapping40.mat`, `splits.mat`, optionally `class13Mapping.mat`
    (`nyuv2_files.NyuFiles`); needs the extra `nyuv2`.  The images' names are their numbers from 1, `0001` to `1449`.
    Converted by `write_nyuv2`: `image/NAME.png`, `label13/NAME.png`, and the lists `train.txt` and `test.txt`.
    As published by A. Handa: `train/*_NNNN.png` with `train_labels_13/*_NNNN.png`, and the same for `test`.

    Label files hold 1-13, and 0 for unlabelled pixels, which are ignored.  The white border of the images is kept.
    """

    metainfo = NYUV2_13
    splits = tuple(SPLIT_SIZES)
    spare_masks = True

    def find_pairs(self) -> list[Pair]:
        self._files: NyuFiles | None = None
        if (self.root / LABELLED).exists():
            self._files = NyuFiles(self.root)
            self._numbers = read_splits(self.root, self._files.count)[self.split]
            return [Pair(f"{number + 1:04d}", self._files.path, self._files.path) for number in self._numbers]
        if (self.root / IMAGES).is_dir():
            images = list_images(self.root / IMAGES, "image")
            listing = self.root / f"{self.split}.txt"
            names = read_listing(listing)
            require_listed(names, images, listing, self.root / IMAGES)
            chosen = {name: images[name] for name in names}
            return pair_up(chosen, list_images(self.root / MASKS, "mask"), self.root / MASKS)
        folder, masks = self.root / self.split, self.root / f"{self.split}_labels_13"
        if not folder.is_dir():
            raise InputError(
                f"no NYUv2 at {self.root}: it holds neither {LABELLED} with {SPLITS}, nor {IMAGES}/ with {MASKS}/, nor "
                f"{self.split}/ with {masks.name}/."
            )
        return pair_up(_by_number(list_images(folder, "image")), _by_number(list_images(masks, "mask")), masks)

    def load_photo(self, index: int) -> Photo:
        return super().load_photo(index) if self._files is None else Photo(self._files.image(self._numbers[index]), 1)

    def load_labels(self, index: int) -> np.ndarray:
        if self._files is not None:
            return _CODES[self._files.codes(self._numbers[index])]
        return super().load_labels(index)

    def read_labels(self, path: Path) -> np.ndarray:
        return labels_from_codes(super().read_labels(path), path)


def labels_from_codes(codes: np.ndarray, path: Path) -> np.ndarray:
    """Labels 0-12, 255 where ignored, of the codes 0-13 of the label file `path`; `InputError` for other codes."""
    labels = _CODES[codes]
    if (labels == _NO_CODE).any():
        found = int(codes[labels == _NO_CODE][0])
        raise InputError(
            f"mask {path} holds label {found}; NYUv2's 13-class files hold 1-13, and 0 for unlabelled. For masks with "
            "0-12 and 255 use the type folders."
        )
    return labels


def write_nyuv2(source: Path, root: Path, *, progress: Callable[[int, int], None] | None = None) -> dict[str, int]:
    """Write the official files in folder `source` as image files to `root`; returns images per split.

    The split lists come last, so an interrupted conversion is no data set yet; it can be run again.
    `progress(done, total)` is called after each image.
    """
    files = NyuFiles(source)
    splits = read_splits(source, files.count)
    total, done = sum(len(numbers) for numbers in splits.values()), 0
    for split, numbers in splits.items():
        (root / f"{split}.txt").unlink(missing_ok=True)
        for number in numbers:
            name = f"{number + 1:04d}.png"
            _write_png(root / IMAGES / name, Image.fromarray(files.image(number)))
            mask = Image.fromarray(files.codes(number))
            mask.putpalette([value for colour in bit_palette(14) for value in colour])
            _write_png(root / MASKS / name, mask)
            done += 1
            if progress is not None:
                progress(done, total)
    for split, numbers in splits.items():
        write_text(root / f"{split}.txt", "".join(f"{number + 1:04d}\n" for number in numbers))
    return {split: len(numbers) for split, numbers in splits.items()}


def _write_png(path: Path, image: Image.Image) -> None:
    write_whole(path, lambda handle: image.save(handle, format="PNG"))


def _by_number(paths: dict[str, Path]) -> dict[str, Path]:
    """The files by the number at the end of their names, as in `nyu_rgb_0001` and `new_nyu_class13_0001`."""
    found: dict[str, Path] = {}
    for name, path in paths.items():
        match = re.search(r"\d+$", name)
        if match is None or match[0] in found:
            raise InputError(f"{path}: the files of NYUv2 end with different image numbers, such as nyu_rgb_0001.png.")
        found[match[0]] = path
    return found
