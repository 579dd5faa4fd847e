"""NYU Depth V2 (Silberman et al. 2012), colour images with 13 classes (Couprie et al. 2013)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from dfad_seg.common.errors import InputError
from dfad_seg.datasets.base import Pair, SegmentationDataset, pair_up
from dfad_seg.datasets.listing import list_images
from dfad_seg.datasets.metainfo import NYUV2_13


class NyuV2(SegmentationDataset):
    """NYUv2 as A. Handa published it: `train/*_NNNN.png` with `train_labels_13/*_NNNN.png`, and the same for `test`.

    Label files hold 1-13, and 0 for unlabelled pixels, which are ignored.  The white border of the images is kept.
    """

    metainfo = NYUV2_13
    published = {"train": 795, "test": 654}
    splits = tuple(published)

    def find_pairs(self) -> list[Pair]:
        folder, masks = self.root / self.split, self.root / f"{self.split}_labels_13"
        return pair_up(_by_number(list_images(folder, "image")), _by_number(list_images(masks, "mask")), masks)

    def read_labels(self, path: Path) -> np.ndarray:
        codes = super().read_labels(path)
        if codes.max() > 13:
            raise InputError(
                f"mask {path} holds label {codes.max()}; NYUv2's 13-class files hold 1-13, and 0 for unlabelled. For "
                "masks with 0-12 and 255 use the type folders."
            )
        return codes - np.uint8(1)  # 0 becomes 255


def _by_number(paths: dict[str, Path]) -> dict[str, Path]:
    """The files by the number at the end of their names, as in `nyu_rgb_0001` and `new_nyu_class13_0001`."""
    found: dict[str, Path] = {}
    for name, path in paths.items():
        match = re.search(r"\d+$", name)
        if match is None or match[0] in found:
            raise InputError(f"{path}: the files of NYUv2 end with different image numbers, such as nyu_rgb_0001.png.")
        found[match[0]] = path
    return found
