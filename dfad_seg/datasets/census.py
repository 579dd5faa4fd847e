"""Whether the values in a set's masks can be what its classes say they are."""

from __future__ import annotations

import numpy as np

from dfad_seg.common.errors import InputError
from dfad_seg.datasets.base import SegmentationDataset
from dfad_seg.datasets.folders import Folders
from dfad_seg.datasets.metainfo import MetaInfo

MUCH = 0.1
"""Share of ignored pixels from which a class that never occurs looks like the ignored value."""
ENOUGH = 6
"""Masks per class that are read before a class counts as one that never occurs."""


class Census:
    """Counts the labels of masks, one after the other."""

    def __init__(self, info: MetaInfo) -> None:
        self.info = info
        self.masks = 0
        self.pixels = np.zeros(256, np.int64)
        """Pixels by label."""
        self._outer = 0
        """Masks that hold the first class and the ignored label, and nothing else."""
        self._beside = False
        """Whether a mask holds the second class beside the ignored label."""

    def add(self, mask: np.ndarray) -> None:
        """Count a mask, uint8 (H, W)."""
        counts = np.bincount(mask.ravel(), minlength=256)
        self.masks += 1
        self.pixels += counts
        present, ignored = np.flatnonzero(counts[: self.info.num_classes]).tolist(), counts[self.info.ignore_index] > 0
        self._outer += present == [0] and bool(ignored)
        self._beside |= bool(ignored) and 1 in present

    def suspicion(self, *, label_map: bool, complete: bool) -> str | None:
        """What looks like masks of 0 and 255 where 255 is a class; None if nothing does.

        Args:
            label_map: whether the data set takes this option.
            complete: whether all masks of the set were counted.
        """
        info, total = self.info, max(1, int(self.pixels.sum()))
        ignored = self.pixels[info.ignore_index] / total
        absent = [i for i in range(info.num_classes) if not self.pixels[i]]
        class_id = absent[0] if absent else info.num_classes - 1 if info.num_classes > 1 else 1
        name = f"class '{info.classes[class_id]}'" if class_id < info.num_classes else "a second class"
        cure = f"label_map: {{255: {class_id}}}" + ("" if label_map else " of the data set type folders")
        if info.num_classes <= 2 and self._outer and not self._beside:
            found = f"{self._outer} of {self.masks} masks hold nothing but 0 and the ignored value 255"
        elif ignored and len(absent) >= info.num_classes - 1 > 0:
            found = f"{ignored:.1%} of the pixels of {self.masks} masks are ignored, and hardly any class occurs"
        elif label_map and absent and ignored >= MUCH and (complete or self.masks >= ENOUGH * info.num_classes):
            found = f"{name} never occurs in {self.masks} masks, and {ignored:.1%} of their pixels are ignored"
        else:
            return None
        return f"{found}. What is ignored is not scored. If 255 means {name}, say so with {cure}."


def label_warnings(dataset: SegmentationDataset, *, sample: int = 64) -> list[str]:
    """What a user must know before a data set is trained on or scored: files left out, and values that look wrong.

    Reads `sample` masks, evenly spread. A mask that cannot be read is left to whoever needs it.
    """
    return [f"the data set at {dataset.root}: {text}" for text in [*dataset.notes, *_suspicions(dataset, sample)]]


def spread(count: int, sample: int | None) -> list[int]:
    """Up to `sample` places of `count`, evenly spread; all without it."""
    if sample is None or sample >= count:
        return list(range(count))
    return [index * count // sample for index in range(sample)]


def takes_label_map(dataset: SegmentationDataset) -> bool:
    return isinstance(dataset, Folders)


def _suspicions(dataset: SegmentationDataset, sample: int) -> list[str]:
    if not dataset.mask_files:
        return []
    census = Census(dataset.metainfo)
    for index in spread(len(dataset), sample):
        try:
            census.add(dataset.load_labels(index))
        except InputError:
            continue
    found = census.suspicion(label_map=takes_label_map(dataset), complete=sample >= len(dataset))
    return [] if found is None else [found]
