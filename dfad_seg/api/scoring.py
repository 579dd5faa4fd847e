"""mIoU of a network on a data set."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from dfad_seg import evaluation
from dfad_seg.common.errors import InputError
from dfad_seg.datasets import SegmentationDataset, eval_loader
from dfad_seg.datasets.census import label_warnings
from dfad_seg.evaluation import SegmentationMetrics


def evaluate_miou(
    model: Callable[[Tensor], Tensor] | None,
    dataset: SegmentationDataset | Iterable[Mapping[str, Any]],
    *,
    num_classes: int | None = None,
    batch_size: int = 8,
    num_workers: int = 0,
    **options: Any,
) -> SegmentationMetrics:
    """The metrics of a network over a whole data set, from one confusion matrix.

    Args:
        model: images `(N, 3, H, W)` in [0, 1] → logits `(N, C, h, w)`: a segmentor, or any callable.
        dataset: of `build_dataset`, which says its classes; or batches as `dfad_seg.evaluation.evaluate_miou` takes
            them, with `num_classes`.
        num_classes: for batches only.
        batch_size: for a data set: images at once.
        num_workers: for a data set: processes that read it.
        options: further arguments of `dfad_seg.evaluation.evaluate_miou`: device, inference, meters, progress, …

    Returns:
        `mIoU`, `mAcc`, `aAcc` and more in [0, 1], and `iou` per class.

    Raises:
        InputError: other classes than the data set's, labels out of range, or no class count.

    Examples:
        >>> import torch
        >>> right = {"image": torch.rand(1, 3, 4, 4), "mask": torch.zeros(1, 4, 4, dtype=torch.long)}
        >>> def first_class(images):
        ...     return torch.stack([torch.ones(4, 4), torch.zeros(4, 4)])[None]
        >>> evaluate_miou(first_class, [right], num_classes=2).aAcc
        1.0
    """
    if not isinstance(dataset, SegmentationDataset):
        if num_classes is None:
            raise InputError("evaluate_miou on batches needs num_classes; a data set of build_dataset says it itself.")
        return evaluation.evaluate_miou(model, dataset, num_classes=num_classes, **options)
    info = dataset.metainfo
    if num_classes not in (None, info.num_classes):
        raise InputError(f"num_classes is {num_classes}, and the data set has {info.num_classes}. Leave it out.")
    for line in label_warnings(dataset):
        warnings.warn(line, stacklevel=2)
    return evaluation.evaluate_miou(
        model,
        eval_loader(dataset, batch_size=batch_size, num_workers=num_workers),
        num_classes=info.num_classes,
        classes=info.classes,
        ignore_index=info.ignore_index,
        **options,
    )
