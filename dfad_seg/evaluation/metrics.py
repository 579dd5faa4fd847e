"""The benchmark's numbers, from a confusion matrix: aAcc, mIoU, mAcc and the per-class values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dfad_seg.common.errors import InputError, choose


@dataclass(frozen=True)
class SegmentationMetrics:
    """The metrics of one model on one data set, as MMSegmentation's `IoUMetric` defines them.

    All values are fractions in [0, 1]. With `TP`, `truth` and `predicted` the pixel counts of a class:
    IoU = TP / (truth + predicted − TP) and Acc = TP / truth. A class with a zero denominator is `nan` and
    left out of the mean. So a class that no mask holds has no Acc, and has an IoU of 0 as soon as it is
    predicted somewhere. Dice = 2 TP / (truth + predicted) = 2 IoU / (1 + IoU).

    Attributes:
        aAcc: pixel accuracy over all evaluated pixels.
        support: evaluated pixels of each class in the truth.
        ignored: pixels that are not evaluated.
    """

    classes: tuple[str, ...]
    aAcc: float
    mIoU: float
    mAcc: float
    iou: tuple[float, ...]
    acc: tuple[float, ...]
    support: tuple[int, ...]
    ignored: int = 0

    @property
    def dice(self) -> tuple[float, ...]:
        """Dice coefficient (F1 score) of each class, or nan."""
        return tuple(2 * iou / (1 + iou) for iou in self.iou)

    @property
    def mDice(self) -> float:
        """Mean of the Dice values that are not nan."""
        return nanmean(self.dice)

    @property
    def fwIoU(self) -> float:
        """IoU weighted by the classes' share of the truth (Long et al. 2015)."""
        weighted = [iou * pixels for iou, pixels in zip(self.iou, self.support, strict=True) if pixels]
        return math.fsum(weighted) / sum(self.support)

    def subset_miou(self, names: Sequence[str]) -> float:
        """Mean IoU of the named classes only; nan when none of them occurs. Errors as of `labels_named`."""
        return nanmean([self.iou[label] for label in labels_named(names, self.classes)])

    def to_dict(self) -> dict[str, Any]:
        """A JSON-friendly dictionary; nan, which JSON does not know, becomes None."""
        totals = {name: getattr(self, name) for name in ("aAcc", "mIoU", "mAcc", "mDice", "fwIoU")}
        by_class = {"IoU": self.iou, "Acc": self.acc, "Dice": self.dice}
        return {
            **totals,
            "classes": list(self.classes),
            **{name: [None if math.isnan(v) else v for v in values] for name, values in by_class.items()},
            "support": list(self.support),
            "ignored": self.ignored,
        }


def labels_named(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The labels of the named classes; InputError for a name that is none."""
    labels = {name: label for label, name in enumerate(classes)}
    return [choose(labels, name, "class") for name in names]


def metrics_from_confusion(matrix: Tensor, classes: Sequence[str], *, ignored: int = 0) -> SegmentationMetrics:
    """The metrics of a confusion matrix.

    Args:
        matrix: integer counts `(C, C)`, rows are the truth and columns the prediction.
        classes: C class names, in label order.
        ignored: the number of pixels beside that are not evaluated.

    Raises:
        InputError: the matrix is empty (no evaluated pixel).
    """
    counts = matrix.to(device="cpu", dtype=torch.int64)
    # Python integers: exact at any size, and divided once.
    hits = counts.diagonal().tolist()
    truth = counts.sum(dim=1).tolist()
    predicted = counts.sum(dim=0).tolist()
    total = sum(truth)
    if total == 0:
        raise InputError(
            "there is nothing to evaluate: the set is empty or every pixel has the ignored label. "
            "Check the data set's folder, the split and ignore_index."
        )
    iou = [_ratio(tp, t + p - tp) for tp, t, p in zip(hits, truth, predicted, strict=True)]
    acc = [_ratio(tp, t) for tp, t in zip(hits, truth, strict=True)]
    return SegmentationMetrics(
        classes=tuple(classes),
        aAcc=sum(hits) / total,
        mIoU=nanmean(iou),
        mAcc=nanmean(acc),
        iou=tuple(iou),
        acc=tuple(acc),
        support=tuple(truth),
        ignored=ignored,
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def nanmean(values: Sequence[float]) -> float:
    """The mean of the values that are not nan; nan of none."""
    present = [value for value in values if not math.isnan(value)]
    return math.fsum(present) / len(present) if present else math.nan
