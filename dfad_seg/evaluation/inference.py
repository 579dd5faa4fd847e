"""From images to label maps: whole images or sliding windows, several scales and flips."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dfad_seg.common.labels import labels_of
from dfad_seg.common.values import NonNegative, Positive, Rate, Size, by, options

_TYPES = {"auto": None, "fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@options
class Inference:
    """How a network is applied to an image.

    With the defaults an image goes through the network whole and once. With several `scales` or `flip`, the softmax of
    each variant's logits, resized to the truth's size, is averaged, as MMSegmentation's `SegTTAModel` does.
    """

    crop_size: Size | None = None
    """Height and width of a sliding window; none: whole images."""
    crop_stride: Size | None = None
    """Rows and columns between two windows; default two thirds of crop_size."""
    scales: tuple[Rate, ...] = (1.0,)
    """Sizes at which each image is predicted, as factors; the probabilities are averaged."""
    flip: bool = False
    """Also predict the mirrored image, and average."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the forward pass; auto: that of a training around it, else bf16 where this machine is faster so, else fp32."""

    def __post_init__(self) -> None:
        if self.crop_stride is not None and self.crop_size is None:
            raise ValueError(f"the stride {by(self.crop_stride)} needs a window: give crop_size too")
        if self.crop_size is not None:
            windows = f"windows of {by(self.crop_size)} pixels every {by(self.stride)}"
            if any(step > side for step, side in zip(self.stride, self.crop_size, strict=True)):
                raise ValueError(f"{windows} leave gaps: crop_stride must not exceed crop_size")
        if not self.scales or not all(0 < scale < 100 for scale in self.scales):
            raise ValueError(f"scales are {list(self.scales)}: at least one is needed, each above 0 and below 100")

    @property
    def stride(self) -> tuple[int, int]:
        """Rows and columns between two windows."""
        assert self.crop_size is not None
        return self.crop_stride or (max(1, 2 * self.crop_size[0] // 3), max(1, 2 * self.crop_size[1] // 3))

    @property
    def averages(self) -> bool:
        """Whether the softmax of variants is averaged; else the scores are the logits."""
        return self.flip or self.scales != (1.0,)

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """The context of each forward pass; `auto` is fp32 here, as only who starts an evaluation can choose."""
        kind = _TYPES[self.precision]
        return nullcontext() if kind is None else torch.autocast(device.type, kind)


@options
class EvaluationOptions(Inference):
    """How a network is scored on the data set."""

    split: str = "val"
    """Of the data set."""
    every: NonNegative = 0
    """Iterations between two evaluations; 0: at the end only. The last one is never skipped."""
    short_side: Positive | None = None
    """Resize image and labels to this shorter side; none: native size."""
    batch_size: Positive = 8
    """Images that are read together."""
    num_workers: NonNegative = 1
    """Processes that read images; 0: none but the main one."""


Network = Callable[[Tensor], Tensor]
_SCORES = 2**22  # that are averaged and compared at once, so that flips and classes cost no copies of all


def predict(
    network: Network,
    images: Tensor,
    size: tuple[int, int],
    mode: Inference,
    *,
    names: Sequence[str] | None = None,
    confidences: Tensor | None = None,
) -> Tensor:
    """Label maps of images of one size: uint8 (N, *size) for up to 256 classes, and int64 for more.

    Arguments as for `scores_of`; `names` of the images are for messages. Of sliding windows only a row of windows is
    held, whatever the mode. `confidences`, float32 (N, *size), takes in each pixel's highest probability.

    Raises:
        InputError: logits that are not finite.
    """

    def use(scores: Tensor, top: int) -> Tensor:
        if confidences is not None:
            probabilities = scores if mode.averages else scores.float().softmax(dim=1)
            torch.amax(probabilities, dim=1, out=confidences[:, top : top + scores.shape[-2]])
        return labels_of(scores, names)

    return scores_of(network, images, size, mode, use)


def scores_of(
    network: Network,
    images: Tensor,
    size: tuple[int, int],
    mode: Inference,
    use: Callable[[Tensor, int], Tensor] = lambda scores, top: scores,
) -> Tensor:
    """(N, C, *size): the logits, resized bilinearly; of several scales or flips the mean of each variant's softmax.

    Args:
        network: images (N, K, H, W) in [0, 1] → logits (N, C, h, w).
        images: on the network's device, float (N, K, H, W) in [0, 1], or uint8 (N, H, W, K) as decoded.
        size: height and width of the wanted label maps.
        mode: how the network is applied.
        use: what is made of the scores' rows (N, C, rows, W) from `top` on, as they are done, and put together.
    """
    planes = images.permute(0, 3, 1, 2) if images.dtype == torch.uint8 else images
    flips = (False, True) if mode.flip else (False,)
    variants = [(scale, flipped) for scale in mode.scales for flipped in flips]
    done, top = torch.empty(0), 0
    with mode.autocast(images.device):
        for row in zip(*(_variant(network, planes, size, mode, *variant) for variant in variants), strict=True):
            if not mode.averages:
                scores = row[0]
            else:
                scores = row[0].float().softmax(dim=1)
                for more in row[1:]:
                    scores += more.float().softmax(dim=1)
                scores.div_(len(variants))
            part = use(scores, top)
            if top == 0:  # room for all at once: pieces kept between large short-lived tensors would split free memory
                done = part.new_empty(*part.shape[:-2], *size)
            done[..., top : top + part.shape[-2], :] = part
            top += part.shape[-2]
    return done


def _variant(
    network: Network, planes: Tensor, size: tuple[int, int], mode: Inference, scale: float, flipped: bool
) -> Iterator[Tensor]:
    """The logits of one scale, mirrored or not, at the wanted size; of sliding windows in strips of the same rows."""
    # Rounded as MMCV rounds, half up.
    scaled = max(1, int(planes.shape[-2] * scale + 0.5)), max(1, int(planes.shape[-1] * scale + 0.5))
    if mode.crop_size is None:
        whole = resized(_unit(planes), scaled)
        logits = network(whole.flip(-1) if flipped else whole)
        yield resized(logits.flip(-1) if flipped else logits, size)
        return
    rows, first = _rows(network, planes, scaled, mode, flipped), 0
    held = next(rows)
    strip = max(1, _SCORES // (size[1] * held.shape[1]))
    for top in range(0, size[0], strip):
        bottom = min(top + strip, size[0])
        while first + held.shape[-2] <= min(int(_source(bottom - 1, scaled[0], size[0])) + 1, scaled[0] - 1):
            done = min(int(_source(top, scaled[0], size[0])) - first, held.shape[-2])
            held, first = torch.cat([held[..., done:, :], next(rows)], dim=-2), first + done
        logits = _part(held, first, scaled[0], size, top, bottom)
        yield logits.flip(-1) if flipped else logits


def _source(row: int, have: int, want: int) -> float:
    """Where a row of an image resized from `have` to `want` rows lies, with half-pixel centres."""
    return min(max((row + 0.5) * have / want - 0.5, 0.0), have - 1.0)


def _part(planes: Tensor, first: int, have: int, size: tuple[int, int], top: int, bottom: int) -> Tensor:
    """Rows `top` … `bottom` of planes of `have` rows, of which those from `first` on are here, resized to `size`."""
    if have == size[0]:
        return resized(_unit(planes[..., top - first : bottom - first, :]), (bottom - top, size[1]))
    at = torch.tensor([_source(row, have, size[0]) - first for row in range(top, bottom)], dtype=torch.float64)
    above, low = at.long(), int(at[0])
    below = (above + 1).clamp_(max=have - 1 - first)
    part = _unit(planes[..., low : int(below[-1]) + 1, :])
    part = resized(part, (part.shape[-2], size[1]))
    one, other = (part.index_select(-2, (rows - low).to(part.device)) for rows in (above, below))
    return one.lerp(other, (at - above).to(part)[:, None])


def _unit(planes: Tensor) -> Tensor:
    return planes.float().div_(255) if planes.dtype == torch.uint8 else planes


def _rows(network: Network, planes: Tensor, size: tuple[int, int], mode: Inference, flipped: bool) -> Iterator[Tensor]:
    """Logits (N, C, rows, W), float32, of sliding windows over the image at a size, or over its mirror image: averaged
    where windows overlap, as MMSegmentation's `slide_inference`, in strips that no window below reaches.

    Windows start at multiples of the stride; the last of a row or column is moved back to end at the border, and an
    image smaller than the window is one window.
    """
    assert mode.crop_size is not None
    height, width = size
    tall, wide = min(mode.crop_size[0], height), min(mode.crop_size[1], width)
    tops = _starts(height, tall, mode.stride[0])
    total = count = torch.empty(0)
    for top, following in zip(tops, [*tops[1:], height], strict=True):
        band = _part(planes, 0, planes.shape[-2], size, top, top + tall)
        for left in _starts(width, wide, mode.stride[1]):
            start = width - left - wide if flipped else left
            window = band[..., start : start + wide]
            logits = resized(network(window.flip(-1) if flipped else window), (tall, wide))
            if total.ndim == 1:
                total = logits.new_zeros(*logits.shape[:2], tall, width, dtype=torch.float32)
                count = total.new_zeros(1, 1, tall, width)
            total[..., left : left + wide] += logits
            count[..., left : left + wide] += 1
        ready = following - top
        strip = max(1, _SCORES // (width * total.shape[1]))
        for first in range(0, ready, strip):
            rows = slice(first, min(first + strip, ready))
            yield total[..., rows, :] / count[..., rows, :]
        for plane in (*total.flatten(0, 1), count[0, 0]):  # what is left lies at the top of the next row of windows
            plane[: tall - ready] = plane[ready:].clone()
            plane[tall - ready :] = 0


def _starts(length: int, window: int, stride: int) -> list[int]:
    windows = max(length - window + stride - 1, 0) // stride + 1
    return [min(place * stride, length - window) for place in range(windows)]


def resized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """`(N, C, h, w)` at another size, bilinear with half-pixel centres; itself where the size is right."""
    if tuple(planes.shape[-2:]) == tuple(size):
        return planes
    return F.interpolate(planes.float(), size=size, mode="bilinear", align_corners=False)
