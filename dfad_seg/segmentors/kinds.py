"""What stands around a network, as options: normalisation, sizes, where the logits are; and what a source of networks
is: a line of the table `SOURCES`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from dfad_seg.common.values import Channels, Decay, FileName, Kind, Number, Rate, options

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SIGMOID = "sigmoid"
WEIGHT_OPTIONS = ("checkpoint", "checkpoint_key", "encoder_checkpoint", "encoder_weights", "pretrained", "new_head")
"""These name files or downloads that went into the weights; saved weights stand for them."""
DOWNLOADED = (
    "encoder_weights are downloaded, which needs internet; without it, leave them out and give a local file as"
    " encoder_checkpoint."
)


@options
class Contract:
    """What a network needs around it: its normalisation, the sizes that it takes, and where its logits are.

    The network sees `(image * input_scale - mean) / std`, in its own channel order.
    """

    in_channels: Channels | None = None
    """Of the images; default 3, RGB (mmseg: the config's). The generator makes, and data sets are read as, images of
    as many."""
    mean: tuple[Number, ...] | None = None
    """One per channel, of the scaled image, in the network's channel order. Default: ImageNet's for smp and
    torchvision; the config's for mmseg; none where images are not RGB."""
    std: tuple[Rate, ...] | None = None
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
    """Key or index of the logits in what the network returns; `out` and `logits` are found without it. `sigmoid` where
    it answers one channel, a mask: that becomes the logits of two classes, background and object."""
    threshold: Decay | None = None
    """Of this mask, for the sigmoid: default 0.5, or the config's for mmseg."""
    classes: tuple[str, ...] | None = None
    """The class names, in label order."""

    def __post_init__(self) -> None:
        channels = self.in_channels or 3
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != channels:
                raise ValueError(f"{name} has {len(values)} values for images of {channels} channels (in_channels)")
        if channels != 3 and self.channel_order == "bgr":
            raise ValueError(f"channel_order bgr is for images of 3 channels, and in_channels is {channels}")
        told = channels == 3 or (self.mean and self.std)
        for mean, std in zip(self.mean or IMAGENET_MEAN, self.std or IMAGENET_STD, strict=True) if told else ():
            scale = self.input_scale or 1.0
            unscaled_mean = scale > 100 and 0 < abs(mean) <= 1
            if unscaled_mean or not (0.4 <= scale / std <= 300 and -0.5 <= mean / scale <= 1.5):
                raise ValueError(
                    f"with mean {mean:g}, std {std:g} and input_scale {scale:g} the network would see black as"
                    f" {-mean / std:.4g} and white as {(scale - mean) / std:.4g}, which makes no sense. Mean and std"
                    " are in units of [0, input_scale]: for numbers such as 123.7 and 58.4 set input_scale to 255, for"
                    " numbers such as 0.485 and 0.229 set input_scale to 1"
                )

    def out_channels(self, num_classes: int) -> int:
        """Of the network's answer."""
        return 1 if self.output == SIGMOID else num_classes


def pad_to_stride(images: Tensor, stride: int, smallest: int = 1) -> Tensor:
    """Pad `(N, C, H, W)` at the right and bottom to multiples of `stride`, repeating the edge pixels.

    Args:
        smallest: the least height and width afterwards.
    """
    bottom, right = (-(-max(side, smallest) // stride) * stride - side for side in images.shape[-2:])
    return F.pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images


@options
class SourceOptions(Contract):
    """What every source but `saved` takes."""

    checkpoint: FileName | None = None
    """A file of weights, loaded strictly; what a trainer wrapped around them is taken off."""
    checkpoint_key: str | None = None
    """Which weights in a file that has several, such as `model_ema`."""


@dataclasses.dataclass
class Network:
    """What a source builds.

    Attributes:
        contract: options of `Contract` that it knows; the user's own go before them.
        palette: one RGB triple (0-255) per class, where the source knows it.
        spec: what a saved network stores in place of the source's own options, where those name files.
        settle: looks at the finished segmentor before anybody uses it; raises InputError if it is not usable.
        fixed_size: (H, W) where the network takes no other.
    """

    module: nn.Module
    contract: dict[str, Any] = dataclasses.field(default_factory=dict)
    palette: Sequence[Sequence[int]] | None = None
    spec: dict[str, Any] | None = None
    settle: Callable[[Any], None] | None = None
    fixed_size: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Source(Kind[Any]):
    """A kind of network: `build(options, num_classes=...)` gives a `Network`, or a finished `Segmentor`.

    Attributes:
        runs_code: whether to rebuild a network from its stored spec runs code that the file names.
        knows_range: whether it knows how its networks' images were normalised; if not, mean and std are needed.
    """

    runs_code: Callable[[Mapping[str, Any]], bool] = lambda spec: False
    knows_range: bool = True
