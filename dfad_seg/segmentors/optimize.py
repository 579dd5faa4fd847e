"""The same network in other forms: exact rewrites that make it faster, and the segmentor contract as tensor operations
alone, which the exporters of torch can follow at any image size."""

import copy
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized

from dfad_seg.common.errors import InputError
from dfad_seg.common.modules import hooked
from dfad_seg.segmentors.base import Segmentor
from dfad_seg.segmentors.convolutions import restore_convolutions, rewrite_convolutions

TOLERANCE = 1e-3
"""Largest deviation of a rewritten or exported network's logits, of the largest logit's magnitude; typical is 1e-6."""


def optimize_for_distillation(
    module: nn.Module,
    image_size: tuple[int, int],
    *,
    trainable: bool,
    fold_batch_norm: bool = True,
    dead_taps: bool = True,
    depthwise_backward: bool = True,
) -> Any:
    """A network that computes the same, faster: values and gradients agree up to rounding, at every image size.

    It is changed in place; its parameters, state and copies are as before (`restore_convolutions` undoes it). Of a
    frozen network a copy is returned where BatchNorm is folded, so that the original is what is saved and hashed. Where
    the answers on random images then differ by more than `TOLERANCE`, BatchNorm stays, with a warning. Networks without
    Python code are returned untouched.

    Args:
        module: a segmentor or any network of images (N, 3, H, W).
        image_size: (H, W) of the images that are compared.
        trainable: whether its parameters will be trained.
        fold_batch_norm: fold BatchNorm into the convolutions of a frozen network; not where something needs these
            layers, as the BatchNorm prior does.
        dead_taps: leave out the taps of dilated convolutions that only read padding.
        depthwise_backward: another way to the gradients of dilated depthwise convolutions, on CPUs.
    """
    if is_opaque(module):
        return module
    if fold_batch_norm and not trainable:
        module = _folded(module, image_size)
    rewrite_convolutions(module, dead_taps=dead_taps, depthwise_backward=depthwise_backward)
    return module


def _folded(module: nn.Module, image_size: tuple[int, int]) -> nn.Module:
    """A copy with BatchNorm folded, or the module itself where that would change nothing or its answers."""
    if not any(isinstance(m, nn.BatchNorm2d) for m in module.modules()):
        return module
    tensor = next(iter([*module.parameters(), *module.buffers()]))
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(1, getattr(module, "in_channels", 3), *image_size, generator=rng).to(
        tensor.device, tensor.dtype
    )

    def answer(network: nn.Module) -> Tensor:
        with torch.no_grad():
            return network(images)

    try:
        copied = copy.deepcopy(module)
        if not _fold(copied, lambda: answer(copied)):
            return module
        expected, found = answer(module), answer(copied)
        deviation = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    except (RuntimeError, TypeError, AttributeError, ValueError, InputError) as error:
        warnings.warn(f"BatchNorm of the teacher is not folded: {error}", stacklevel=3)
        return module
    if not deviation <= TOLERANCE:
        warnings.warn(
            f"BatchNorm of the teacher is not folded: its answers would change by {deviation:.1e} of their size.",
            stacklevel=3,
        )
        return module
    return copied


def _fold(module: nn.Module, run: Callable[[], Any]) -> int:
    """Fold, in place, every BatchNorm2d in evaluation mode that is given the very tensor that one convolution made.

    y = γ (w ⋆ x + b − μ) / √(σ² + ε) + β is itself a convolution of x, with other weights. Which pairs there are is
    seen in one forward pass, which `run` makes without gradients. Not seen is what else uses such a tensor, or makes a
    convolution's weights anew while it runs: the network's answers are to be compared afterwards.

    Returns:
        How many were folded. The BatchNorm layers become identities, or what else they did (timm's have an activation).
    """
    made: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}  # the tensors are kept, so that no identity is used twice
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after_conv(_: str, conv: nn.Conv2d, inputs: tuple[Tensor, ...], answer: Tensor) -> None:
        made[id(answer)] = (conv, answer, answer._version)

    def before_norm(_: str, norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            conv, answer, version = made[id(inputs[0])]
            if answer._version == version:  # else an activation has changed it in place
                found.append((conv, norm))

    names = {part: name for name, part in module.named_modules()}
    convolutions = [part for part in names if isinstance(part, nn.Conv2d) and not is_parametrized(part)]
    norms = [part for part in names if isinstance(part, nn.BatchNorm2d) and not part.training]
    with (
        hooked({names[conv]: conv for conv in convolutions}, after=after_conv),
        hooked({names[norm]: norm for norm in norms if norm.running_mean is not None}, before=before_norm),
    ):
        run()
    uses = Counter(part for pair in found for part in pair)
    pairs = [pair for pair in found if uses[pair[0]] == uses[pair[1]] == 1]
    for conv, norm in pairs:
        module.set_submodule(names[conv], fuse_conv_bn_eval(conv, norm))
        module.set_submodule(names[norm], _remainder(norm))
    return len(pairs)


def _remainder(norm: nn.BatchNorm2d) -> nn.Module:
    """What a BatchNorm's module does beside normalising: timm's drop and activate."""
    rest = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    return nn.Sequential(*rest)


class ExportableSegmentor(nn.Module):
    """Images to logits as `Segmentor.forward` gives them, without checks and without branches on the size.

    Padding and cropping are always computed, also where they change nothing: an exporter records one path, and that
    has to be right for every size.

    Args:
        segmentor: its network is used as it is; see `exportable` for a copy that is made ready.
        gather_crop: crop by index rather than by slice. The answers are equal. torch.export proves a slice's bounds
            by guards that then forbid sizes, and an index has none; ONNX has no guards, and its slices are faster.
    """

    def __init__(self, segmentor: Segmentor, *, gather_crop: bool = False) -> None:
        super().__init__()
        self.segmentor = segmentor
        self.gather_crop = gather_crop

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, K, H, W) in [0, 1] to float32 logits (N, C, H, W), or (N, 1, H, W) of a mask."""
        segmentor, stride = self.segmentor, self.segmentor.stride
        height, width = images.shape[-2], images.shape[-1]
        padded_height, padded_width = (
            (_at_least(side, segmentor) + stride - 1) // stride * stride for side in (height, width)
        )
        padded = segmentor.normalise(images)
        if max(stride, segmentor.smallest) > 1:
            # Edge pixels repeated at the bottom and right, as `pad_to_stride` does.
            rows = torch.arange(padded_height, device=images.device).clamp(max=height - 1)
            columns = torch.arange(padded_width, device=images.device).clamp(max=width - 1)
            padded = padded.index_select(2, rows).index_select(3, columns)
        logits = segmentor.network_logits(segmentor.network(padded), images.shape[0])
        size = (padded_height, padded_width)
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=segmentor.align_corners)
        if max(stride, segmentor.smallest) == 1:
            return logits
        if self.gather_crop:
            rows, columns = (torch.arange(count, device=images.device) for count in (height, width))
            return logits.index_select(2, rows).index_select(3, columns)
        return logits[:, :, :height, :width]


def exportable(segmentor: Segmentor, *, dynamic: bool, gather_crop: bool = False) -> ExportableSegmentor:
    """A copy of a segmentor for exporting: on the CPU, float32, in evaluation mode; the segmentor stays as it is.

    Args:
        dynamic: for any image size. TensorFlow's "same" padding, which timm's `tf_` encoders compute from the size,
            is then replaced by the constant that it is at multiples of the encoder's stride.
        gather_crop: see `ExportableSegmentor`.
    """
    if dynamic and segmentor.smallest > segmentor.stride:
        raise InputError(
            f"this network takes images of at least {segmentor.smallest} pixels a side, which a file of dynamic size"
            " cannot pad smaller ones to. Export one size (--no-dynamic --size H W), or use the format torchscript."
        )
    copied = copy.deepcopy(segmentor).cpu().float().eval()
    copied.requires_grad_(False)
    restore_convolutions(copied)
    if not is_opaque(copied):
        copied.to(memory_format=torch.contiguous_format)
        if dynamic:
            _fix_same_padding(copied)
    return ExportableSegmentor(copied, gather_crop=gather_crop).eval()


def _at_least(side: Any, segmentor: Segmentor) -> Any:
    """A side, a number or (traced) a tensor, or the smallest that the network takes."""
    if segmentor.smallest <= segmentor.stride:
        return side
    return side.clamp(min=segmentor.smallest) if isinstance(side, Tensor) else max(side, segmentor.smallest)


def _fix_same_padding(segmentor: Segmentor) -> None:
    from timm.layers import Conv2dSame  # takes seconds, and only a copy of a network comes here

    for name, layer in list(segmentor.network.named_modules()):
        if isinstance(layer, Conv2dSame):
            padding: tuple[int, ...] = ()  # left, right, top, bottom
            for kernel, step, dilation in zip(layer.kernel_size, layer.stride, layer.dilation, strict=True):
                total = max((kernel - 1) * dilation + 1 - step, 0)
                padding = (total // 2, total - total // 2, *padding)
            layer.__class__ = nn.Conv2d  # type: ignore[assignment]
            padded = nn.Sequential(nn.ConstantPad2d(padding, 0.0), layer)  # type: ignore[arg-type]
            segmentor.network.set_submodule(name, padded)


def is_opaque(segmentor: nn.Module) -> bool:
    """Whether a network comes without Python code: a TorchScript file, an exported program."""
    return any(isinstance(module, (torch.jit.ScriptModule, torch.fx.GraphModule)) for module in segmentor.modules())
