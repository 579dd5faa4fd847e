"""The segmentor contract: images in [0, 1] in, logits at the same resolution out, at any height and width."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfad_seg.common.errors import OUT_OF_MEMORY, Diverged, InputError, Interrupted, printable
from dfad_seg.common.values import Channels, validated
from dfad_seg.segmentors.kinds import IMAGENET_MEAN, IMAGENET_STD, SIGMOID, Contract, pad_to_stride

_LOGITS_KEYS = ("out", "logits")  # torchvision's and transformers' names for the logits in a mapping
# What is no fault of the network: whoever called it explains these.
_NOT_ITS_OWN = (InputError, Interrupted, Diverged, MemoryError, OSError, torch.OutOfMemoryError)


class NetworkFailed(InputError):
    """A network raised an error of its own on an input; `images` may be of a size that it does not take."""


class Segmentor(nn.Module):
    """A segmentation network together with its own normalisation and padding.

    Args:
        network: any module that maps `(N, K, h, w)` to logits `(N, C, h', w')`. A mapping with the logits
            under "out" (torchvision) or "logits" is understood; for anything else give `output`.
        num_classes: C.
        output: takes the logits from what the network returns: a callable, or a key or index. `sigmoid`: the network
            answers one channel, a mask, which becomes the logits of C = 2 classes.
        contract: the options of `Contract`.

    Attributes:
        spec: plain options from which `build_segmentor(**spec)` rebuilds it; None if built by hand.
        palette: one RGB triple (0-255) per class, where the network's origin says so; else None.
        fixed_size: (H, W) where the network takes no other.
        is_frozen: whether `freeze` was called.
        fixed_batch: how many images the network takes at once, where that is fixed; any number can be given.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        output: Callable[[Any], Tensor] | str | int | None = None,
        **contract: Any,
    ) -> None:
        super().__init__()
        given = validated(Contract, contract, "segmentor")
        validated(Channels, num_classes, "segmentor: num_classes")  # type: ignore[arg-type]
        self.network = network
        self.num_classes = num_classes
        self.input_scale = float(given.input_scale or 1.0)
        self.channel_order = given.channel_order or "rgb"
        self.stride = given.stride or 1
        self.smallest = given.smallest or 1
        self.output = output
        self.out_channels = 1 if output == SIGMOID else num_classes
        self.threshold = given.threshold or 0.5
        self.align_corners = given.align_corners
        self.classes = given.classes
        if self.classes is not None and len(self.classes) != num_classes:
            raise InputError(f"classes = {list(self.classes)[:9]}: {num_classes} names are needed, one per class.")
        self.spec: dict[str, Any] | None = None
        self.palette: Sequence[Sequence[int]] | None = None
        self.fixed_size: tuple[int, int] | None = None
        self.fixed_batch: int | None = None
        self.is_frozen = False
        if output == SIGMOID and num_classes != 2:
            raise InputError(
                f"output: sigmoid is a mask by one channel, of two classes, background and object; num_classes is"
                f" {num_classes}. Set it to 2; heads of several sigmoids (multi-label) are not supported."
            )
        if given.threshold is not None and output != SIGMOID:
            raise InputError("threshold is for a mask by one channel: give output: sigmoid, or leave it out.")
        self.in_channels = given.in_channels or 3
        if self.in_channels != 3 and not (given.mean and given.std):
            raise InputError(
                f"images of {self.in_channels} channels have no usual normalisation: give mean and std, one value per"
                " channel; mean 0 and std 1 for a network that takes values in [0, 1]."
            )
        # Not persistent: checkpoints hold the network's weights only, and load into a plain network too.
        for name, values in (("mean", given.mean or IMAGENET_MEAN), ("std", given.std or IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images.

        Args:
            images: float, `(N, K, H, W)`, K = 3 for RGB, values in [0, 1]; any H, W >= 1. Another range
                is not detected.

        Returns:
            float32 logits `(N, C, H, W)` (float64 from a float64 network), also under autocast: the resize
            and what follows it (losses, argmax) need the precision.

        Raises:
            InputError: wrong rank, channel count or dtype of `images`, or a network whose answer is not
                `(N, C, h, w)`.
        """
        _check_images(images, self.in_channels)
        if self.is_frozen:
            self._stay_frozen()
        height, width = images.shape[-2:]
        if self.fixed_size not in (None, (height, width)):
            wanted = "{}x{}".format(*self.fixed_size)
            raise NetworkFailed(
                f"this network takes images of {wanted} only, and got {height}x{width}. Take images of that size"
                f" (image_size: {list(self.fixed_size)}; to score larger ones, crop_size), or make it anew for any: a"
                " trace or export by dynamic shapes, one of timm by encoder_options: {dynamic_img_size: true}."
            )
        padded = pad_to_stride(self.normalise(images), self.stride, self.smallest)
        if self.fixed_batch is None:
            logits = self.take_logits(self._run(padded), len(images))
        else:
            # The last images are repeated, until the last batch is full.
            rows = torch.arange(-(-len(images) // self.fixed_batch) * self.fixed_batch, device=images.device)
            batches = padded[rows.clamp(max=len(images) - 1)].split(self.fixed_batch)
            logits = torch.cat([self.take_logits(self._run(batch), len(batch)) for batch in batches])[: len(images)]
        if logits.dtype != torch.float64:
            logits = logits.float()
        if logits.shape[-2:] != padded.shape[-2:]:
            logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        # Not cropped where nothing was padded: the gradient of even a whole slice is a copy into zeros.
        return logits if padded.shape == images.shape else logits[..., :height, :width]

    def normalise(self, images: Tensor) -> Tensor:
        """What the network sees: channel order, scale, mean and std applied to images in [0, 1]."""
        if self.channel_order == "bgr":
            images = images.flip(1)
        return (images * self.input_scale - self.mean) / self.std

    def preprocessing(self) -> dict[str, Any]:
        """The normalisation and padding as plain values, ready for a checkpoint or `build_segmentor`."""
        names = ("in_channels", "input_scale", "channel_order", "stride", "smallest", "align_corners")
        normalisation = {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist()}
        return {name: getattr(self, name) for name in names} | normalisation

    def train(self, mode: bool = True) -> "Segmentor":
        """As in `nn.Module`, except that a frozen segmentor stays in evaluation mode."""
        super().train(mode and not self.is_frozen)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> "Segmentor":
        """As in `nn.Module`, except that a frozen segmentor never requires gradients."""
        super().requires_grad_(requires_grad and not self.is_frozen)
        return self

    def _stay_frozen(self) -> None:
        # Helpers may call `.train()` or `.requires_grad_()` on inner modules, past the methods above.
        # Checked at each use rather than by patched methods: survives deepcopy, and costs microseconds.
        for module in self.modules():
            if module.training:
                module.train(False)
        for parameter in self.parameters():
            if parameter.requires_grad:
                parameter.requires_grad_(False)

    def _run(self, images: Tensor) -> Any:
        try:
            return self.network(images)
        except _NOT_ITS_OWN:
            raise
        except Exception as error:  # layers, scripts and programs raise what they like
            if OUT_OF_MEMORY.search(str(error)):
                raise
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no details"]
            if "more than 1 value per channel" in lines[-1]:
                raise NetworkFailed(
                    f"one image per batch (network input {tuple(images.shape)}) is too few for this network in"
                    " training mode: it has BatchNorm after global pooling, which needs several values per"
                    " channel. Use a batch size of at least 2."
                ) from error
            reason = lines[-1] if "TorchScript" in lines[0] else lines[0]  # which says first where it was
            reason = printable(reason.removeprefix(f"{type(error).__name__}: "))
            raise NetworkFailed(
                f"the network failed on an input of shape {tuple(images.shape)} ({type(error).__name__}: {reason}). If"
                " it needs other sizes, give the options stride or smallest, or images of the size it was made for."
            ) from error

    def take_logits(self, answer: Any, batch: int) -> Tensor:
        """The logits `(batch, C, h, w)` in what the network returned; `InputError` if there are none."""
        return self.class_logits(self.network_logits(answer, batch))

    def class_logits(self, logits: Tensor) -> Tensor:
        """The network's own logits (N, out_channels, ...) as those of the classes (N, C, ...).

        A mask's z becomes 0 and z - log(t / (1 - t)): at the threshold t = 1/2 their softmax is the sigmoid of z, and
        at any t the second is larger where the sigmoid is above t. So whatever follows knows classes alone.
        """
        if self.output != SIGMOID:
            return logits
        above = logits - math.log(self.threshold / (1 - self.threshold))
        return torch.cat([torch.zeros_like(above), above], dim=1)

    def network_logits(self, answer: Any, batch: int) -> Tensor:
        """The network's own logits `(batch, out_channels, h, w)` in what it returned."""
        found = answer
        if callable(self.output):
            found = self.output(answer)
        elif self.output not in (None, SIGMOID):
            try:
                found = answer[self.output]
            except (KeyError, IndexError, TypeError):
                found = None
        elif isinstance(answer, Mapping):
            found = next((answer[key] for key in _LOGITS_KEYS if key in answer), None)
        if not isinstance(found, Tensor):
            raise InputError(
                f"the network returns {in_words(answer)}, in which output = {self.output!r} selects no logits"
                f" (N, {self.out_channels}, h, w). Give the option output: the key or index of the logits."
            )
        if found.ndim != 4 or found.shape[0] != batch or found.shape[1] != self.out_channels:
            # Another batch is what numbers that were burnt in make of an image of another size.
            kind = NetworkFailed if found.ndim == 4 and found.shape[0] != batch else InputError
            raise kind(
                f"the network returns logits of shape {tuple(found.shape)}; needed is"
                f" ({batch}, {self.out_channels}, h, w): batch, classes, height, width."
                " Check num_classes, or give another network or the option output"
                " (sigmoid for a mask by one channel)."
            )
        return found


def freeze(segmentor: Segmentor) -> Segmentor:
    """Fix a segmentor for good, in place: no parameter gradients, evaluation mode.

    It stays so after `.train()` or `.requires_grad_()` on it, on a module that holds it, or on its inner
    modules: each forward pass restores the state first. Gradients still flow to the images.

    Returns:
        The same segmentor.
    """
    segmentor.eval()
    segmentor.requires_grad_(False)
    segmentor.is_frozen = True
    segmentor._stay_frozen()
    return segmentor


def _check_images(images: Any, channels: int) -> None:
    fits = isinstance(images, Tensor) and images.ndim == 4 and images.shape[1] == channels and 0 not in images.shape
    if not fits or not images.is_floating_point():
        found = (
            f"{images.dtype} of shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        )
        raise InputError(
            f"a segmentor got {found}. Needed are float{' RGB' if channels == 3 else ''} images of shape"
            f" (N, {channels}, H, W) with values in [0, 1]: images[None] adds a batch, images.permute(0, 3, 1, 2) moves"
            " the channels first, images.float() / 255 converts bytes."
        )


def in_words(answer: Any) -> str:
    """What a network returned, or a file holds, for a message."""
    if isinstance(answer, Tensor):
        return f"a Tensor of shape {tuple(answer.shape)}"
    if isinstance(answer, Mapping):
        return f"a mapping with the keys {', '.join(printable(repr(key), 40) for key in list(answer)[:5])}"
    if isinstance(answer, (list, tuple)):
        return f"a {type(answer).__name__} of {len(answer)}"
    return type(answer).__name__
