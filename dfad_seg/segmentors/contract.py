"""What stands around a network, as options: normalisation, sizes, where the logits are."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from dfad_seg.common.values import Channels, Number, Rate, options, validated

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@options
class Contract:
    """What a network needs around it: its normalisation, the sizes that it takes, and where its logits are.

    The network sees `(image * input_scale - mean) / std`, in its own channel order.
    """

    mean: tuple[Number, Number, Number] | None = None
    """Of the scaled image, in the network's channel order. Default: ImageNet's for smp and torchvision; the config's
    for mmseg."""
    std: tuple[Rate, Rate, Rate] | None = None
    """Likewise."""
    input_scale: Rate | None = None
    """1 (the default) for networks trained on [0, 1] before mean and std, 255 for [0, 255]."""
    channel_order: Literal["rgb", "bgr"] | None = None
    """What the network was trained on; default `rgb`. Callers always pass RGB."""
    stride: Channels | None = None
    """The network's input height and width must be multiples of this number. Images of other sizes are padded at the
    right and bottom (edge pixels repeated), and the logits are cropped back. Default: found out where it can be."""
    smallest: Channels | None = None
    """The least input height and width; smaller images are padded. Default: found out where it can be."""
    align_corners: bool = False
    """Of the bilinear resize, applied where the network answers at another resolution."""
    output: str | int | None = None
    """Key or index of the logits in what the network returns; `out` and `logits` are found without it."""
    classes: tuple[str, ...] | None = None
    """The class names, in label order."""

    def __post_init__(self) -> None:
        for mean, std in zip(self.mean or IMAGENET_MEAN, self.std or IMAGENET_STD, strict=True):
            problem = _wrong_unit(mean, std, self.input_scale or 1.0)
            if problem:
                raise ValueError(problem)


def _wrong_unit(mean: float, std: float, scale: float) -> str | None:
    """Why the normalised range of black and white makes no sense, and what was meant; None if it does make sense."""
    if _makes_sense(mean, std, scale):
        return None
    black, white = -mean / std, (scale - mean) / std
    likely = next((s for s in (1.0, 255.0) if _makes_sense(mean, std, s)), None)
    if likely is not None:
        do = f"They are in units of [0, {likely:g}]: set input_scale to {likely:g}"
    elif mean and std == 1 and scale > 100:
        do = "Multiply the mean by 255"
    else:
        do = f"Give both in units of [0, {scale:g}], as the image is multiplied by input_scale first"
    return (
        f"with mean {mean:g}, std {std:g} and input_scale {scale:g} the network would see black as {black:.4g} and"
        f" white as {white:.4g}, which makes no sense. {do}"
    )


def _makes_sense(mean: float, std: float, scale: float) -> bool:
    return 0.4 <= scale / std <= 300 and -0.5 <= mean / scale <= 1.5 and not (scale > 100 and 0 < abs(mean) <= 1)


def pad_to_stride(images: Tensor, stride: int, smallest: int = 1) -> Tensor:
    """Pad `(N, C, H, W)` at the right and bottom to multiples of `stride`, repeating the edge pixels.

    Args:
        smallest: the least height and width afterwards.
    """
    bottom, right = (-(-max(side, smallest) // stride) * stride - side for side in images.shape[-2:])
    return F.pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images


def check_num_classes(value: Any) -> None:
    """Raises InputError for what is no number of classes."""
    validated(_Classes, {"num_classes": value}, "segmentor")


@options
class _Classes:
    num_classes: Channels
