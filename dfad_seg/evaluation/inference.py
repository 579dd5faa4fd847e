"""From images to label maps: whole images or sliding windows, several scales and flips."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

    Arguments as for `scores_of`; `names` of the images are for messages.

    Raises:
        InputError: logits that are not finite.
    """
    return labels_of(scores_of(network, images, size, mode), names)


def scores_of(network: Network, images: Tensor, size: tuple[int, int], mode: Inference) -> Tensor:
    """(N, C, *size): the logits, resized bilinearly; of several scales or flips the mean of each variant's softmax.

    Args:
        network: images (N, K, H, W) in [0, 1] → logits (N, C, h, w).
        images: on the network's device, float (N, K, H, W) in [0, 1], or uint8 (N, H, W, K) as decoded.
        size: height and width of the wanted label maps.
        mode: how the network is applied.
    """
    images = as_floats(images)
    flips = (False, True) if mode.flip else (False,)
    variants = [(scale, flipped) for scale in mode.scales for flipped in flips]
    with mode.autocast(images.device):
        scores = _variant(network, images, size, mode, *variants[0])
        if variants == [(1.0, False)]:
            return scores
        scores = scores.float().softmax(dim=1)
        for variant in variants[1:]:
            scores += _variant(network, images, size, mode, *variant).float().softmax(dim=1)
        return scores.div_(len(variants))


def as_floats(images: Tensor) -> Tensor:
    """(N, K, H, W) in [0, 1] of images that may be as decoded, uint8 (N, H, W, K)."""
    return images.permute(0, 3, 1, 2).float().div_(255) if images.dtype == torch.uint8 else images


def _variant(
    network: Network, images: Tensor, size: tuple[int, int], mode: Inference, scale: float, flipped: bool
) -> Tensor:
    """The logits of one scale, mirrored or not, at the wanted size."""
    # Rounded as MMCV rounds, half up.
    height, width = (max(1, int(side * scale + 0.5)) for side in images.shape[-2:])
    images = resized(images, (height, width))
    images = images.flip(-1) if flipped else images
    logits = network(images) if mode.crop_size is None else slide(network, images, mode)
    return resized(logits.flip(-1) if flipped else logits, size)


def slide(network: Network, images: Tensor, mode: Inference) -> Tensor:
    """Logits (N, C, H, W) of sliding windows, averaged where they overlap, float32: MMSegmentation's `slide_inference`.

    Windows start at multiples of the stride; the last of a row or column is moved back to end at the border, and an
    image smaller than the window is one window.
    """
    assert mode.crop_size is not None
    height, width = images.shape[-2:]
    tall, wide = min(mode.crop_size[0], height), min(mode.crop_size[1], width)
    total, count = torch.empty(0), torch.zeros(1, 1, height, width, device=images.device)
    for top in _starts(height, tall, mode.stride[0]):
        for left in _starts(width, wide, mode.stride[1]):
            window = (..., slice(top, top + tall), slice(left, left + wide))
            logits = resized(network(images[window]), (tall, wide))
            if total.ndim == 1:
                total = logits.new_zeros(*logits.shape[:2], height, width, dtype=torch.float32)
            total[window] += logits
            count[window] += 1
    return total / count


def _starts(length: int, window: int, stride: int) -> list[int]:
    windows = max(length - window + stride - 1, 0) // stride + 1
    return [min(place * stride, length - window) for place in range(windows)]


def resized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """`(N, C, h, w)` at another size, bilinear with half-pixel centres; itself where the size is right."""
    if tuple(planes.shape[-2:]) == tuple(size):
        return planes
    return F.interpolate(planes.float(), size=size, mode="bilinear", align_corners=False)
