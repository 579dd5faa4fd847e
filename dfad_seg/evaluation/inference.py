"""From images to label maps: whole images, sliding windows, several scales and flips, reduced precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dfad_seg.common.errors import InputError

Network = Callable[[Tensor], Tensor]
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Inference:
    """How a network is applied to an image.

    With the defaults an image goes through the network whole and once. With several `scales` or `flip`, the softmax of
    each variant's logits, resized to the truth's size, is averaged, as MMSegmentation's `SegTTAModel` does.

    Attributes:
        crop_size: height and width of a sliding window, or None for whole images. Windows are placed, and their logits
            averaged where they overlap, as by MMSegmentation's `slide_inference`.
        crop_stride: rows and columns between two windows; two thirds of the window by default.
        scales: factors on the image's height and width.
        flip: also the mirrored image, at each scale.
        precision: fp32; bf16 or fp16 run under autocast.
        adaptive_norm: weight in [0, 1] of each image's own statistics in BatchNorm; `evaluate_miou` sees to it, see
            `adaptive_norm.adaptive_batch_norm`.

    Raises:
        InputError: a stride without a window or larger than it, no scale, one that is not positive, an unknown
            precision, or a weight outside its range.
    """

    crop_size: tuple[int, int] | None = None
    crop_stride: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    precision: str = "fp32"
    adaptive_norm: float = 0.0

    def __post_init__(self) -> None:
        if self.crop_size is None and self.crop_stride is not None:
            raise InputError(f"the stride {_pair(self.crop_stride)} needs a window: give the crop's size too.")
        if self.crop_size is not None:
            if min(self.crop_size) < 1 or min(self.stride) < 1:
                raise InputError(
                    f"windows of {_pair(self.crop_size)} pixels every {_pair(self.stride)}: 1 is the least for each."
                )
            if any(step > side for step, side in zip(self.stride, self.crop_size, strict=True)):
                raise InputError(
                    f"windows of {_pair(self.crop_size)} pixels every {_pair(self.stride)} leave gaps: "
                    "the stride must not exceed the crop."
                )
        if not self.scales or not all(0 < scale < 100 for scale in self.scales):
            raise InputError(f"scales are {list(self.scales)}: at least one is needed, each above 0 and below 100.")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is '{self.precision}'. Known: {', '.join(PRECISIONS)}.")
        if not 0 <= self.adaptive_norm <= 1:
            raise InputError(f"adaptive_norm is {self.adaptive_norm}; it must be in [0, 1].")

    @property
    def stride(self) -> tuple[int, int]:
        """Rows and columns between two windows."""
        assert self.crop_size is not None
        return self.crop_stride or (max(1, 2 * self.crop_size[0] // 3), max(1, 2 * self.crop_size[1] // 3))

    @property
    def augmented(self) -> bool:
        """Whether several variants of an image are averaged."""
        return self.flip or len(self.scales) > 1 or self.scales[0] != 1

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """The context of each forward pass."""
        dtype = PRECISIONS[self.precision]
        return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def predict(
    network: Network, images: Tensor, size: tuple[int, int], mode: Inference, *, want_scores: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Label maps of images of one size.

    The logits (with several scales or flips, the averaged softmax) are resized bilinearly to `size` before the argmax.
    Sliding windows over an image of the wanted size hold the logits of one row of windows at a time, so that memory
    does not grow with the image's height.

    Args:
        network: images (N, 3, H, W) in [0, 1] → logits (N, C, h, w).
        images: float (N, 3, H, W), RGB in [0, 1], on the network's device.
        size: height and width of the wanted label maps.
        mode: how the network is applied.
        want_scores: also the probabilities.

    Returns:
        Labels (N, *size), uint8 for up to 256 classes and int64 for more; and float32 probabilities (N, C, *size), or
        None where they are not wanted.
    """
    with mode.autocast(images.device):
        if mode.augmented:
            scores = _averaged(network, images, size, mode)
            return label_map(scores), scores if want_scores else None
        if mode.crop_size is not None and not want_scores and size == tuple(images.shape[-2:]):
            return torch.cat([label_map(band) for band in slide(network, images, mode)], dim=1), None
        logits = resized(_logits(network, images, mode), size)
        labels = label_map(logits)
        return labels, logits.float().softmax(dim=1) if want_scores else None


def _logits(network: Network, images: Tensor, mode: Inference) -> Tensor:
    return network(images) if mode.crop_size is None else torch.cat(list(slide(network, images, mode)), dim=2)


def _averaged(network: Network, images: Tensor, size: tuple[int, int], mode: Inference) -> Tensor:
    total: Tensor | None = None
    height, width = images.shape[-2:]
    for scale in mode.scales:
        # Rounded as MMCV rounds, half up.
        scaled = resized(images, (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))))
        for flipped in (False, True) if mode.flip else (False,):
            logits = _logits(network, scaled.flip(-1) if flipped else scaled, mode)
            logits = logits.flip(-1) if flipped else logits
            scores = resized(logits, size).float().softmax(dim=1)
            total = scores if total is None else total.add_(scores)
    assert total is not None
    return total / (len(mode.scales) * (2 if mode.flip else 1))


def slide(network: Network, images: Tensor, mode: Inference) -> Iterator[Tensor]:
    """Logits of sliding windows, averaged where they overlap, as bands of rows from top to bottom.

    Windows start at multiples of the stride; the last of a row or column is moved back to end at the border, and an
    image smaller than the window is one window. Each band is `(N, C, rows, W)`, float32, and final.
    """
    assert mode.crop_size is not None
    height, width = images.shape[-2:]
    tall, wide = min(mode.crop_size[0], height), min(mode.crop_size[1], width)
    tops, lefts = _starts(height, tall, mode.stride[0]), _starts(width, wide, mode.stride[1])
    done = 0
    total = images.new_zeros(0)
    count = images.new_zeros(1, 1, 0, width, dtype=torch.float32)
    for place, top in enumerate(tops):
        count = F.pad(count, (0, 0, 0, top + tall - done - count.shape[2]))
        for left in lefts:
            logits = network(images[..., top : top + tall, left : left + wide])
            if logits.shape[-2:] != (tall, wide):
                logits = resized(logits, (tall, wide))
            if total.ndim == 1:
                total = logits.new_zeros(*logits.shape[:2], 0, width, dtype=torch.float32)
            if total.shape[2] != count.shape[2]:
                total = F.pad(total, (0, 0, 0, count.shape[2] - total.shape[2]))
            total[..., top - done : top - done + tall, left : left + wide] += logits
            count[..., top - done : top - done + tall, left : left + wide] += 1
        rows = (tops[place + 1] if place + 1 < len(tops) else height) - done
        yield total[:, :, :rows] / count[:, :, :rows]
        total, count, done = total[:, :, rows:], count[:, :, rows:], done + rows


def _starts(length: int, window: int, stride: int) -> list[int]:
    windows = max(length - window + stride - 1, 0) // stride + 1
    return [min(place * stride, length - window) for place in range(windows)]


def resized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """`(N, C, h, w)` at another size, bilinear with half-pixel centres; itself where the size is right."""
    if tuple(planes.shape[-2:]) == tuple(size):
        return planes
    return F.interpolate(planes.float(), size=size, mode="bilinear", align_corners=False)


def label_map(scores: Tensor) -> Tensor:
    """The class of the highest score, of several the first: `(N, C, H, W)` → `(N, H, W)`.

    uint8 for up to 256 classes, int64 for more. Scores must not be nan.
    """
    if scores.shape[1] > 256:
        return scores.argmax(dim=1)
    if scores.device.type == "cpu" and scores.dtype == torch.float32 and scores.stride(-1) == 1:
        return torch.from_numpy(_argmax_of_planes(scores.detach().numpy()))
    # On a CPU torch's max over planes is several times faster than its argmax, and promises the first maximum too.
    return scores.max(dim=1).indices.to(torch.uint8)


_STRIP = 2**16  # pixels of a plane that are worked on at once, so that they stay in the processor's cache


def _argmax_of_planes(scores: np.ndarray) -> np.ndarray:
    """A running maximum over whole planes: vectorised where torch's argmax goes pixel by pixel, 30 times faster."""
    images, classes, height, width = scores.shape
    labels = np.zeros((images, height, width), dtype=np.uint8)
    rows = max(1, _STRIP // max(1, width))
    for image in range(images):
        for top in range(0, height, rows):
            planes, label = scores[image, :, top : top + rows], labels[image, top : top + rows]
            best = planes[0].copy()
            higher = np.empty(best.shape, dtype=bool)
            for index in range(1, classes):
                np.greater(planes[index], best, out=higher)
                np.maximum(best, planes[index], out=best)
                # Later classes have larger numbers, so a maximum writes them where they win.
                np.maximum(label, higher.view(np.uint8) * np.uint8(index), out=label)
    return labels


def _pair(values: tuple[int, int]) -> str:
    return f"{values[0]}x{values[1]}"
