"""Evaluating a segmentor on labelled batches, and comparing two segmentors without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfad_seg.errors import InputError
from dfad_seg.evaluation.confusion import ConfusionMatrix
from dfad_seg.evaluation.metrics import SegmentationMetrics, metrics_from_confusion


def evaluate_miou(
    model: Callable[[Tensor], Tensor],
    batches: Iterable[Mapping[str, Any]],
    *,
    num_classes: int,
    classes: Sequence[str] | None = None,
    ignore_index: int = 255,
    device: torch.device | str | None = None,
    autocast: Callable[[], AbstractContextManager] | None = None,
    progress: Callable[[int], None] | None = None,
    on_batch: Callable[[Mapping[str, Any], list[Tensor]], None] | None = None,
    all_reduce: Callable[[Tensor], Tensor] | None = None,
) -> SegmentationMetrics:
    """The metrics of `model` over all `batches`, from one dataset-level confusion matrix.

    The model is in evaluation mode meanwhile; afterwards each submodule has its former mode again, also
    after an error. Logits of another size than the mask are resized bilinearly to the mask's size before
    the argmax, so that the truth is always evaluated at its own resolution.

    Args:
        model: images `(N, 3, H, W)` in [0, 1] → logits `(N, num_classes, h, w)`.
        batches: dictionaries with "image": float `(N, 3, H, W)` or a list of `(3, H, W)`, and "mask":
            integer `(N, H, W)` or a list of `(H, W)`, labels in [0, num_classes) or `ignore_index`.
        num_classes: the number of classes.
        classes: class names for the result; "0", "1", … by default.
        ignore_index: label of pixels that are not evaluated.
        device: where to compute; by default where the model's parameters are.
        autocast: gives a context for each forward pass, for example
            `lambda: torch.autocast("cpu", torch.bfloat16)`.
        progress: called after each batch with the number of images just evaluated.
        on_batch: called after each batch with the batch and one int64 prediction `(H, W)` per image.
        all_reduce: sums an int64 tensor over the processes when each evaluates a part of the set.

    Raises:
        InputError: the model's class count is not `num_classes`, a label is out of range, images and masks
            do not belong together, or there is no pixel to evaluate.
    """
    names = tuple(classes) if classes is not None else tuple(str(label) for label in range(num_classes))
    if len(names) != num_classes:
        raise InputError(f"{len(names)} class names given for {num_classes} classes: {', '.join(names)}.")
    device = torch.device(device) if device is not None else _device_of(model)
    matrix = ConfusionMatrix(num_classes, ignore_index, device)
    with evaluating(model), torch.inference_mode():
        for batch in batches:
            predictions: list[Tensor] = []
            for images, masks in _equal_sizes(batch):
                masks = masks.to(device, non_blocking=True)
                with autocast() if autocast is not None else nullcontext():
                    logits = model(images.to(device, non_blocking=True))
                _check_logits(logits, len(images), num_classes)
                if logits.shape[-2:] != masks.shape[-2:]:
                    logits = F.interpolate(logits.float(), size=masks.shape[-2:], mode="bilinear", align_corners=False)
                labels = logits.argmax(dim=1)
                matrix.update(labels, masks)
                predictions.extend(labels)
            if on_batch is not None:
                on_batch(batch, predictions)
            if progress is not None:
                progress(len(predictions))
    if all_reduce is not None:
        matrix.sync(all_reduce)
    return metrics_from_confusion(matrix.compute(), names)


class PixelAgreement:
    """The share of pixels where two segmentors give the same label, over a set of images.

    Needs no truth: how closely a student follows its teacher on any images, made or real.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._equal = torch.zeros((), dtype=torch.int64, device=device)
        self._total = torch.zeros((), dtype=torch.int64, device=device)

    def update(self, first: Tensor, second: Tensor, valid: Tensor | None = None) -> None:
        """Count one image or batch: two label maps of one shape, and optionally a bool map of what counts.

        Raises:
            InputError: the shapes differ.
        """
        if first.shape != second.shape or (valid is not None and valid.shape != first.shape):
            shapes = [tuple(item.shape) for item in (first, second, valid) if item is not None]
            raise InputError(f"label maps of shapes {shapes} cannot be compared: all must be equal.")
        equal = first == second
        if valid is None:
            self._total += equal.numel()
        else:
            equal = equal & valid.bool()
            self._total += valid.bool().sum()
        self._equal += equal.sum()

    def compute(self) -> float:
        """The agreement, a fraction in [0, 1].

        Raises:
            InputError: no pixel was counted.
        """
        total = int(self._total)
        if total == 0:
            raise InputError("the agreement of two segmentors needs at least one pixel; none was counted.")
        return int(self._equal) / total


@contextmanager
def evaluating(model: Callable) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards each submodule's own former mode, also after an error."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        # Set the flags one by one: .train() would also switch on submodules that were deliberately off.
        for module, mode in modes:
            module.training = mode


def _device_of(model: Callable) -> torch.device:
    if isinstance(model, nn.Module):
        for tensor in (*model.parameters(), *model.buffers()):
            return tensor.device
    return torch.device("cpu")


def _equal_sizes(batch: Mapping[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """The batch's images and masks in order, as stacks `(n, 3, H, W)` and `(n, h, w)` of one size each."""
    for key in ("image", "mask"):
        if key not in batch:
            raise InputError(f"a batch to evaluate needs the keys 'image' and 'mask'; '{key}' is missing.")
    images, masks = batch["image"], batch["mask"]
    if len(images) != len(masks):
        raise InputError(f"a batch has {len(images)} images but {len(masks)} masks.")
    if isinstance(images, Tensor) and isinstance(masks, Tensor):
        if images.ndim != 4 or masks.ndim != 3:
            raise InputError(
                f"a batch needs images (N, 3, H, W) and masks (N, H, W), "
                f"got {tuple(images.shape)} and {tuple(masks.shape)}."
            )
        if len(images):
            yield images, masks
        return
    pairs = zip(images, masks, strict=True)
    for _, group in groupby(pairs, key=lambda pair: (pair[0].shape, pair[1].shape)):
        same = list(group)
        yield torch.stack([image for image, _ in same]), torch.stack([mask for _, mask in same])


def _check_logits(logits: Any, batch_size: int, num_classes: int) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 4 or len(logits) != batch_size:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"the model must return logits ({batch_size}, {num_classes}, H, W), got {got}.")
    if logits.shape[1] != num_classes:
        raise InputError(
            f"the model predicts {logits.shape[1]} classes but the data set has {num_classes}; "
            f"evaluate it on the set it was trained for, or set the model's num_classes to {num_classes}."
        )
