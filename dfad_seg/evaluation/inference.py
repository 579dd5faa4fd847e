"""From images to label maps: whole images or sliding windows, several scales and flips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dfad_seg.common.labels import labels_of
from dfad_seg.evaluation.options import Inference

Network = Callable[[Tensor], Tensor]


def predict(
    network: Network, images: Tensor, size: tuple[int, int], mode: Inference, *, names: Sequence[str] | None = None
) -> Tensor:
    """Label maps of images of one size: uint8 (N, *size) for up to 256 classes, and int64 for more.

    Arguments as for `scores_of`; `names` of the images are for messages. Of sliding windows at the images' own
    size only a row of windows is held, with flips as without.

    Raises:
        InputError: logits that are not finite.
    """
    return _from_rows(network, images, size, mode, lambda scores: labels_of(scores, names))


def predict_with_confidence(
    network: Network, images: Tensor, size: tuple[int, int], mode: Inference, *, names: Sequence[str] | None = None
) -> tuple[Tensor, Tensor]:
    """The label maps as of `predict`, and each pixel's highest probability: float32 (N, *size)."""
    confidences: list[Tensor] = []

    def use(scores: Tensor) -> Tensor:
        probabilities = scores if mode.averages else scores.float().softmax(dim=1)
        confidences.append(probabilities.amax(dim=1))
        return labels_of(scores, names)

    return _from_rows(network, images, size, mode, use), torch.cat(confidences, dim=-2)


def scores_of(network: Network, images: Tensor, size: tuple[int, int], mode: Inference) -> Tensor:
    """(N, C, *size): the logits, resized bilinearly; of several scales or flips the mean of each variant's softmax.

    Args:
        network: images (N, K, H, W) in [0, 1] → logits (N, C, h, w).
        images: on the network's device, float (N, K, H, W) in [0, 1], or uint8 (N, H, W, K) as decoded.
        size: height and width of the wanted label maps.
        mode: how the network is applied.
    """
    return _from_rows(network, images, size, mode, lambda scores: scores)


def _from_rows(
    network: Network, images: Tensor, size: tuple[int, int], mode: Inference, use: Callable[[Tensor], Tensor]
) -> Tensor:
    """`use(scores)` of the scores' rows (N, C, rows, W) as they are done from top to bottom, put together."""
    planes = images.permute(0, 3, 1, 2) if images.dtype == torch.uint8 else images
    flips = (False, True) if mode.flip else (False,)
    variants = [(scale, flipped) for scale in mode.scales for flipped in flips]
    done = []
    with mode.autocast(images.device):
        for row in zip(*(_variant(network, planes, size, mode, *variant) for variant in variants), strict=True):
            if not mode.averages:
                scores = row[0]
            else:
                scores = row[0].float().softmax(dim=1)
                for more in row[1:]:
                    scores += more.float().softmax(dim=1)
                scores.div_(len(variants))
            done.append(use(scores))
    return done[0] if len(done) == 1 else torch.cat(done, dim=-2)


def as_floats(images: Tensor) -> Tensor:
    """(N, K, H, W) in [0, 1] of images that may be as decoded, uint8 (N, H, W, K)."""
    return images.permute(0, 3, 1, 2).float().div_(255) if images.dtype == torch.uint8 else images


def _variant(
    network: Network, planes: Tensor, size: tuple[int, int], mode: Inference, scale: float, flipped: bool
) -> Iterator[Tensor]:
    """The logits of one scale, mirrored or not, at the wanted size: row by row of windows where nothing is resized."""
    # Rounded as MMCV rounds, half up.
    height, width = (max(1, int(side * scale + 0.5)) for side in planes.shape[-2:])
    if (height, width) != planes.shape[-2:]:
        planes = resized(_unit(planes), (height, width))
    if mode.crop_size is not None and set(mode.scales) == {1.0} and (height, width) == tuple(size):
        yield from (rows.flip(-1) if flipped else rows for rows in _rows(network, planes, mode, flipped))
    elif mode.crop_size is not None:
        logits = torch.cat(list(_rows(network, planes, mode, flipped)), dim=-2)
        yield resized(logits.flip(-1) if flipped else logits, size)
    else:
        logits = network(_unit(planes.flip(-1) if flipped else planes))
        yield resized(logits.flip(-1) if flipped else logits, size)


def _unit(planes: Tensor) -> Tensor:
    return planes.float().div_(255) if planes.dtype == torch.uint8 else planes


def slide(network: Network, images: Tensor, mode: Inference) -> Tensor:
    """Logits (N, C, H, W) of sliding windows, averaged where they overlap, float32: MMSegmentation's `slide_inference`.

    Windows start at multiples of the stride; the last of a row or column is moved back to end at the border, and an
    image smaller than the window is one window.
    """
    return torch.cat(list(_rows(network, images, mode, False)), dim=-2)


def _rows(network: Network, planes: Tensor, mode: Inference, flipped: bool) -> Iterator[Tensor]:
    """The logits of `slide`, of the mirrored image with `flipped`, in parts of rows as no window below reaches them."""
    assert mode.crop_size is not None
    height, width = planes.shape[-2:]
    tall, wide = min(mode.crop_size[0], height), min(mode.crop_size[1], width)
    tops = _starts(height, tall, mode.stride[0])
    total = count = torch.empty(0)
    for top, following in zip(tops, [*tops[1:], height], strict=True):
        for left in _starts(width, wide, mode.stride[1]):
            start = width - left - wide if flipped else left
            window = _unit(planes[..., top : top + tall, start : start + wide])
            logits = resized(network(window.flip(-1) if flipped else window), (tall, wide))
            if total.ndim == 1:
                total = logits.new_zeros(*logits.shape[:2], tall, width, dtype=torch.float32)
                count = total.new_zeros(1, 1, tall, width)
            total[..., left : left + wide] += logits
            count[..., left : left + wide] += 1
        ready = following - top
        yield total[..., :ready, :] / count[..., :ready, :]
        # What is left lies at the top of the next row of windows.
        total, count = (F.pad(sums[..., ready:, :], (0, 0, 0, ready)) for sums in (total, count))


def _starts(length: int, window: int, stride: int) -> list[int]:
    windows = max(length - window + stride - 1, 0) // stride + 1
    return [min(place * stride, length - window) for place in range(windows)]


def resized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """`(N, C, h, w)` at another size, bilinear with half-pixel centres; itself where the size is right."""
    if tuple(planes.shape[-2:]) == tuple(size):
        return planes
    return F.interpolate(planes.float(), size=size, mode="bilinear", align_corners=False)
