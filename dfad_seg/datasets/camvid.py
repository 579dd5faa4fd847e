"""CamVid (Brostow, Fauqueur, Cipolla 2009): street scenes seen from a car, 11 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dfad_seg.datasets.base import Pair, SegmentationDataset, pair_up
from dfad_seg.datasets.listing import list_images
from dfad_seg.datasets.metainfo import CAMVID

_VOID = 11


class CamVid(SegmentationDataset):
    """CamVid as the SegNet tutorial has it: `train/ trainannot/ val/ valannot/ test/ testannot/`.

    Images are `.png` or `.jpg`, index masks have labels 0-10 and 11 = void.  Any number of images: a user's own set in
    this layout works too.
    """

    metainfo = CAMVID
    published = {"train": 367, "val": 101, "test": 233}

    def find_pairs(self) -> list[Pair]:
        annotations = self.root / f"{self.split}annot"
        images = list_images(self.root / self.split, "image", self.notes)
        return pair_up(images, list_images(annotations, "mask"), annotations)

    def read_labels(self, path: Path) -> np.ndarray:
        labels = super().read_labels(path)
        return np.where(labels == _VOID, np.uint8(CAMVID.ignore_index), labels)
