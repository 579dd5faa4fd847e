"""What can be measured beside the confusion matrix: each meter sees every image once, and costs only when asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor

from dfad_seg.common.labels import IGNORED
from dfad_seg.evaluation.metrics import ConfusionMatrix

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
