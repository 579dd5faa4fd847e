"""One dataset-level confusion matrix: exact int64 counts, kept on the device until they are read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dfad_seg.common.errors import InputError

_AT_ONCE = 2**22  # pixels, so that a large image needs no more memory than a small one


class ConfusionMatrix:
    """Pixel counts of (truth, prediction) pairs over a whole data set.

    The benchmark mIoU comes from one matrix summed over all images, not from a mean of per-image values.

    Args:
        num_classes: C, the number of classes; labels are 0 … C-1.
        ignore_index: truth label of pixels that are not evaluated, outside 0 … C-1.
        device: where the counts live; `update` takes tensors on this device.

    Attributes:
        ignored: pixels with the ignored label so far.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255, device: torch.device | str = "cpu") -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        # C*C pairs, then one bin for ignored pixels.
        self._counts = torch.zeros(num_classes**2 + 1, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count the pixels of one image or batch.

        Args:
            prediction: integer labels of any shape, values in [0, C).
            target: integer labels of the same shape, values in [0, C) or `ignore_index`.

        Raises:
            InputError: the shapes differ, a tensor holds no integers, or a label is out of range; nothing is counted.
        """
        if prediction.shape != target.shape:
            raise InputError(
                f"prediction of shape {tuple(prediction.shape)} and truth of shape {tuple(target.shape)} "
                f"cannot be compared: both must have the same shape."
            )
        for name, labels in (("prediction", prediction), ("truth", target)):
            if labels.is_floating_point() or labels.is_complex():
                raise InputError(
                    f"the {name} has type {labels.dtype}; class labels must be integers "
                    f"(take the argmax of logits first)."
                )
        counts = torch.zeros_like(self._counts)
        parts = (labels.reshape(-1).split(_AT_ONCE) for labels in (prediction, target))
        for predicted, truth in zip(*parts, strict=True):
            if truth.numel():
                counts += self._counted(_signed(predicted), _signed(truth))
        self._counts += counts

    def _counted(self, prediction: Tensor, target: Tensor) -> Tensor:
        ignored = target == self.ignore_index
        target, highest = target.masked_fill(ignored, 0), self.num_classes - 1
        *truth_range, low, high = torch.stack([*target.aminmax(), *prediction.aminmax()]).tolist()
        for value in truth_range:
            if not 0 <= value <= highest:
                raise InputError(
                    f"truth label {value} is neither a class (0 to {highest}) nor the ignored label "
                    f"{self.ignore_index}; check the masks, num_classes and ignore_index."
                )
        for value in (low, high):
            if not 0 <= value <= highest:
                raise InputError(
                    f"predicted label {value} is not a class (0 to {highest}); check the model's class count."
                )
        # int32 halves the memory traffic of the index: about 1.5 times faster than int64 on a CPU.
        index = (target.to(torch.int32) * self.num_classes).add_(prediction).masked_fill_(ignored, self.num_classes**2)
        return torch.bincount(index, minlength=self.num_classes**2 + 1)

    def sync(self, all_reduce: Callable[[Tensor], Tensor]) -> None:
        """Replace the counts by their sum over all processes.

        Args:
            all_reduce: takes an int64 tensor and returns its sum over the processes (in place or not).
        """
        self._counts = all_reduce(self._counts.clone())

    def compute(self) -> Tensor:
        """The counts: int64 `(C, C)` on the CPU, rows are the truth and columns the prediction."""
        return self._counts[:-1].reshape(self.num_classes, self.num_classes).cpu().clone()

    @property
    def ignored(self) -> int:
        return int(self._counts[-1])


def _signed(labels: Tensor) -> Tensor:
    # Unsigned labels would wrap in the comparison with a negative ignore_index; int32 holds what they hold.
    if labels.dtype in (torch.int32, torch.int64):
        return labels
    return labels.to(torch.int64 if labels.dtype in (torch.uint32, torch.uint64) else torch.int32)
