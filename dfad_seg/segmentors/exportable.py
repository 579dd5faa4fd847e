"""The segmentor contract as tensor operations alone, which the exporters of torch can follow at any image size."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.segmentors.base import Segmentor
from dfad_seg.segmentors.convolutions import restore_convolutions


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
