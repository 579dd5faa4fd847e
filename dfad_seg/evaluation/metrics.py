"""The benchmark's numbers: one confusion matrix of exact int64 counts over the data set, and what follows from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dfad_seg.common.errors import InputError, choose
from dfad_seg.common.labels import IGNORED

TOTALS = ("aAcc", "mIoU", "mAcc", "mDice", "fwIoU")
"""The numbers that are not per class."""
_AT_ONCE = 2**22  # pixels, so that a large image needs no more memory than a small one


class ConfusionMatrix:
    """Pixel counts of (truth, prediction) pairs over a whole data set.

    The benchmark mIoU comes from one matrix summed over all images, not from a mean of per-image values.

    Args:
        num_classes: C, the number of classes; labels are 0 … C-1.
        ignore_index: truth label of pixels that are not evaluated, outside 0 … C-1.

    Attributes:
        counts: int64 (C · C + 1,), the pairs and then one bin of ignored pixels.
        ignored: pixels with the ignored label so far.
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORED) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = torch.zeros(num_classes**2 + 1, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count the pixels of one image or batch.

        Args:
            prediction: integer labels of any shape, values in [0, C).
            target: integer labels of the same shape, values in [0, C) or `ignore_index`.

        Raises:
            InputError: they are no integers of one shape, or a label is out of range; nothing is counted.
        """
        if prediction.shape != target.shape or prediction.is_floating_point() or target.is_floating_point():
            said = [f"{labels.dtype} {tuple(labels.shape)}" for labels in (prediction, target)]
            raise InputError(f"prediction {said[0]} and truth {said[1]}: class labels are integers of one shape.")
        counts = torch.zeros_like(self.counts)
        parts = (labels.reshape(-1).split(_AT_ONCE) for labels in (prediction, target))
        for predicted, truth in zip(*parts, strict=True):
            if truth.numel():
                counts += self._counted(_signed(predicted), _signed(truth))
        self.counts += counts

    def _counted(self, prediction: Tensor, target: Tensor) -> Tensor:
        ignored = target == self.ignore_index
        target, highest = target.masked_fill(ignored, 0), self.num_classes - 1
        least, most = torch.stack([*target.aminmax(), *prediction.aminmax()]).view(2, 2).T.tolist()
        for name, low, high in zip(("truth", "predicted"), least, most, strict=True):
            if low < 0 or high > highest:
                wrong = low if low < 0 else high
                raise InputError(
                    f"{name} label {wrong} is no class (0 to {highest}); check masks, model and num_classes."
                )
        # int32 halves the memory traffic of the index: about 1.5 times faster than int64 on a CPU.
        index = (target.to(torch.int32) * self.num_classes).add_(prediction).masked_fill_(ignored, self.num_classes**2)
        return torch.bincount(index, minlength=self.num_classes**2 + 1).cpu()

    def compute(self) -> Tensor:
        """The counts: int64 `(C, C)` rows are the truth and columns the prediction."""
        return self.counts[:-1].reshape(self.num_classes, self.num_classes).clone()

    @property
    def ignored(self) -> int:
        return int(self.counts[-1])


def _signed(labels: Tensor) -> Tensor:
    # Unsigned labels would wrap in the comparison with a negative ignore_index; int32 holds what they hold.
    if labels.dtype in (torch.int32, torch.int64):
        return labels
    return labels.to(torch.int64 if labels.dtype in (torch.uint32, torch.uint64) else torch.int32)


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

    def to_dict(self) -> dict[str, Any]:
        """A JSON-friendly dictionary; nan, which JSON does not know, becomes None."""
        totals = {name: getattr(self, name) for name in TOTALS}
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
