"""Evaluating on labelled batches: a segmentor, or label maps that were stored before."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.common.modules import evaluating
from dfad_seg.common.speed import denormals_as_zero
from dfad_seg.evaluation.inference import Inference, predict
from dfad_seg.evaluation.meters import CalibrationError, Predicted
from dfad_seg.evaluation.metrics import ConfusionMatrix, SegmentationMetrics, metrics_from_confusion

STORED = "prediction"
"""The key of a batch under which a data set delivers label maps that were predicted before."""
# A processor is fastest where an image's features stay in its caches; an accelerator wants whole batches.
_PIXELS_AT_ONCE_ON_A_CPU = 2**18


def evaluate_miou(
    model: Callable[[Tensor], Tensor] | None,
    batches: Iterable[Mapping[str, Any]],
    *,
    num_classes: int,
    classes: Sequence[str] | None = None,
    device: torch.device | str | None = None,
    inference: Inference = Inference(),  # noqa: B008
    meters: Sequence[Any] = (),
    progress: Callable[[int], None] | None = None,
    on_batch: Callable[[Mapping[str, Any], list[Tensor]], None] | None = None,
    all_reduce: Callable[[Tensor], Tensor] | None = None,
) -> SegmentationMetrics:
    """The metrics of `model` over all `batches`, from one dataset-level confusion matrix.

    The model is in evaluation mode meanwhile, and denormal numbers count as zero; afterwards each submodule has its
    former mode again, also after an error. Logits of another size than the mask are resized bilinearly to the mask's
    size before the argmax, so that the truth is always evaluated at its own resolution. Images of one size in a batch
    go through the model together (large ones one by one on a CPU, which is faster there); none is padded.

    Args:
        model: images `(N, K, H, W)` in [0, 1] → logits `(N, num_classes, h, w)`. Without one the batches hold the
            label maps to evaluate under "prediction", integers in [0, num_classes) as the masks.
        batches: dictionaries with "image": float `(N, K, H, W)` in [0, 1], or uint8 `(N, H, W, K)` as files are
            decoded, which is a quarter of the bytes; and "mask": integer `(N, H, W)`, labels in [0, num_classes) or
            255, which is not evaluated. Either may be a list of N tensors without the first dimension. "name" names
            the images.
        classes: class names for the result; "0", "1", … by default.
        device: where to compute; by default where the model's parameters are.
        inference: how the model is applied; whole images, once, by default.
        meters: what else is to be added up; the `update` of each sees every image once.
        progress: called after each batch with the number of images just evaluated.
        on_batch: called after each batch with the batch and one integer prediction `(H, W)` per image.
        all_reduce: sums an int64 tensor over the processes, in place or not, when each evaluates a part of the set; the
            meters are not summed.

    Raises:
        InputError: the model's class count is not `num_classes`, its logits are not finite, a label is out of range, or
            there is no pixel to evaluate.
    """
    classes = tuple(classes) if classes is not None else tuple(str(label) for label in range(num_classes))
    tensors = (*model.parameters(), *model.buffers()) if isinstance(model, nn.Module) else ()
    device = torch.device(device or next((tensor.device for tensor in tensors), "cpu"))
    matrix = ConfusionMatrix(num_classes)
    network = None if model is None else _checked(model, num_classes)
    calibration = any(isinstance(meter, CalibrationError) for meter in meters)

    with evaluating(model), denormals_as_zero(), torch.inference_mode():
        for batch in batches:
            predictions: dict[int, Tensor] = {}
            known = batch.get("name", range(len(batch["mask"])))
            for places, truth, images, stored in _equal_sizes(batch, device):
                names = [str(known[place]) for place in places]
                confidence = torch.empty(truth.shape, device=truth.device) if calibration else None
                if network is None:
                    labels = stored[STORED]
                else:
                    assert images is not None
                    size = (truth.shape[-2], truth.shape[-1])
                    labels = predict(network, images, size, inference, names=names, confidences=confidence)
                matrix.update(labels, truth)
                for meter in meters:
                    meter.update(Predicted(names, labels, truth, images, confidence, stored))
                predictions |= zip(places, labels, strict=True)
            if on_batch is not None:
                on_batch(batch, [predictions[place] for place in sorted(predictions)])
            if progress is not None:
                progress(len(predictions))
    if all_reduce is not None:
        matrix.counts = all_reduce(matrix.counts.clone())
    return metrics_from_confusion(matrix.compute(), classes, ignored=matrix.ignored)


def _checked(model: Callable[[Tensor], Tensor], num_classes: int) -> Callable[[Tensor], Tensor]:
    def network(images: Tensor) -> Tensor:
        logits = model(images)
        wanted = (len(images), num_classes)
        if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[:2] != wanted:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(
                f"the model must return logits ({len(images)}, {num_classes}, H, W) of the data set's {num_classes} "
                f"classes, got {got}."
            )
        return logits

    return network


Group = tuple[list[int], Tensor, Tensor | None, dict[str, Tensor]]


def _equal_sizes(batch: Mapping[str, Any], device: torch.device) -> Iterator[Group]:
    """The batch in groups of one size: places in the batch, masks, images and stored label maps, on the device."""
    masks, images = batch["mask"], batch.get("image")
    stored = {key: batch[key] for key in batch if key == STORED or key.startswith(f"{STORED}:")}
    groups: dict[Any, list[int]] = {}
    for place, mask in enumerate(masks):
        groups.setdefault((mask.shape, None if images is None else images[place].shape), []).append(place)
    for (size, _), same in groups.items():
        most = max(1, _PIXELS_AT_ONCE_ON_A_CPU // max(1, size.numel())) if device.type == "cpu" else len(same)
        for places in (same[start : start + most] for start in range(0, len(same), most)):

            def gather(parts: Any, places: list[int] = places) -> Tensor:
                whole = isinstance(parts, Tensor) and len(places) == len(parts)
                together = parts if whole else torch.stack([parts[place] for place in places])
                return together.to(device, non_blocking=True)

            together = None if images is None else gather(images)
            yield places, gather(masks), together, {key: gather(parts) for key, parts in stored.items()}
