"""Evaluating on labelled batches: a segmentor, or label maps that were stored before. What is measured beside the
confusion matrix sees every image once, and costs only when it is asked for."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.common.labels import IGNORED
from dfad_seg.common.modules import denormals_as_zero, evaluating
from dfad_seg.evaluation.inference import Inference, predict
from dfad_seg.evaluation.metrics import ConfusionMatrix, SegmentationMetrics, metrics_from_confusion

_NOTHING = 255  # in 8-bit label maps: a pixel without a class


@dataclass(frozen=True)
class Predicted:
    """What a model predicted for images of one size.

    Attributes:
        labels, truth: integer (n, H, W).
        images: float (n, 3, h, w) or uint8 (n, h, w, 3); None where the prediction was read from files.
        confidence: float32 (n, H, W), each pixel's highest probability, where a meter needs it.
        stored: label maps (n, H, W) that the data set delivers beside, by name.
    """

    names: Sequence[str]
    labels: Tensor
    truth: Tensor
    images: Tensor | None = None
    confidence: Tensor | None = None
    stored: dict[str, Tensor] = field(default_factory=dict)


class ImageCounts:
    """Per image and class the pixels of intersection, truth and prediction: what a bootstrap over images needs."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._counts: dict[str, np.ndarray] = {}

    def update(self, seen: Predicted) -> None:
        for name, labels, truth in zip(seen.names, seen.labels, seen.truth, strict=True):
            matrix = ConfusionMatrix(self.num_classes)
            matrix.update(labels, truth)
            counts = matrix.compute()
            self._counts[name] = torch.stack([counts.diagonal(), counts.sum(1), counts.sum(0)]).numpy()

    @property
    def names(self) -> list[str]:
        """The images, in the order of their names."""
        return sorted(self._counts)

    def compute(self) -> np.ndarray:
        """int64 (N, 3, C), in the order of `names`: for each class intersection, truth and prediction."""
        if not self._counts:
            return np.zeros((0, 3, self.num_classes), dtype=np.int64)
        return np.stack([self._counts[name] for name in self.names])


class BoundaryIoU:
    """Boundary IoU (Cheng et al. 2021) of each class, its pixels summed over the data set.

    A class's boundary region is those of its pixels that have a pixel of something else, or the image's border, within
    d pixels (in rows or columns, the larger); the value is the IoU of truth's and prediction's regions. d is `ratio`
    times the image's diagonal, rounded, at least 1. Ignored pixels belong to no class, in the truth and in the
    prediction, so both have a boundary along them.
    """

    def __init__(self, num_classes: int, ratio: float = 0.02) -> None:
        self.num_classes, self.ratio = num_classes, ratio
        self._pairs = ConfusionMatrix(256, ignore_index=-1)

    def update(self, seen: Predicted) -> None:
        for labels, truth in zip(seen.labels.cpu().numpy(), seen.truth.cpu().numpy(), strict=True):
            ignored = truth == IGNORED
            regions = [self._region(np.where(ignored, _NOTHING, part).astype(np.uint8)) for part in (truth, labels)]
            self._pairs.update(*(torch.from_numpy(region) for region in reversed(regions)))

    def _region(self, labels: np.ndarray) -> np.ndarray:
        """The labels in the boundary regions, `_NOTHING` elsewhere."""
        height, width = labels.shape
        reach = max(1, round(self.ratio * float(np.hypot(height, width))))
        # A pixel is inside its class if the least and the greatest label around it are the same; one pass for all
        # classes, where the paper's code erodes class by class.
        around = cv2.copyMakeBorder(labels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=_NOTHING)
        window = np.ones((2 * reach + 1, 2 * reach + 1), dtype=np.uint8)
        inside = cv2.erode(around, window) == cv2.dilate(around, window)
        return np.where(inside[1:-1, 1:-1], np.uint8(_NOTHING), labels)

    def compute(self) -> list[float]:
        """Boundary IoU of each class; nan where neither truth nor prediction has it."""
        pairs = self._pairs.compute()
        hits = pairs.diagonal()
        union = pairs.sum(dim=1) + pairs.sum(dim=0) - hits
        both = zip(hits.tolist()[: self.num_classes], union.tolist()[: self.num_classes], strict=True)
        return [h / u if u else float("nan") for h, u in both]


class CalibrationError:
    """Expected calibration error over pixels (Guo et al. 2017, eq. 3): Σ_b n_b / n · |accuracy_b − confidence_b|.

    A pixel's confidence is its highest probability; bins have equal width, and a value on an edge belongs to the bin
    above it. Ignored pixels do not count.
    """

    def __init__(self, bins: int = 15) -> None:
        self.bins = bins
        self._gaps, self._pixels = torch.zeros(bins, dtype=torch.float64), 0

    def update(self, seen: Predicted) -> None:
        assert seen.confidence is not None
        parts = (each.reshape(-1).split(2**20) for each in (seen.truth, seen.labels, seen.confidence))
        for truth, labels, confidences in zip(*parts, strict=True):
            kept = truth != IGNORED
            confidence, right = confidences[kept], (labels == truth)[kept]
            place = (confidence * self.bins).long().clamp_(max=self.bins - 1)
            gaps = torch.zeros(self.bins, dtype=torch.float64, device=place.device)
            self._gaps += gaps.index_add_(0, place, right.double() - confidence).cpu()
            self._pixels += len(place)

    def compute(self) -> float:
        """The error, a fraction in [0, 1]; nan without pixels."""
        return float(self._gaps.abs().sum() / self._pixels)


class Agreement:
    """On how many pixels a model gives its teacher's label, over all pixels of the images; needs no truth.

    Args:
        num_classes: of both.
        teacher: `seen` → the teacher's label maps (n, H, W), at the size of the model's.
    """

    def __init__(self, num_classes: int, teacher: Callable[[Predicted], Tensor]) -> None:
        self.teacher, self._matrix = teacher, ConfusionMatrix(num_classes, ignore_index=-1)

    def update(self, seen: Predicted) -> None:
        self._matrix.update(seen.labels, self.teacher(seen).to(seen.labels.device))

    def compute(self) -> tuple[float, list[float]]:
        """The share of equal pixels, and for each class the share of the teacher's pixels of it that are equal (nan
        where there are none).
        """
        counts = self._matrix.compute()
        equal, pixels = counts.diagonal().tolist(), counts.sum(dim=1).tolist()
        return sum(equal) / sum(pixels), [e / p if p else float("nan") for e, p in zip(equal, pixels, strict=True)]


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
