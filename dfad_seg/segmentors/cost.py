"""What a network costs: parameters and floating-point operations."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dfad_seg.common.errors import InputError


def count_parameters(module: nn.Module) -> int:
    """The number of parameters, each shared one counted once; buffers are left out."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_flops(segmentor: nn.Module, size: tuple[int, int]) -> int:
    """Floating-point operations of one image of `size` (height, width) in evaluation mode.

    Convolutions and matrix products are counted, one multiply-accumulate (MAC) as 2 operations;
    normalisation, activations and resizing are left out, as is usual. The segmentor is left as it is.
    """
    try:
        # On the meta device nothing is computed.
        return _count(copy.deepcopy(segmentor).to("meta"), size, torch.device("meta"))
    except (AssertionError, InputError, NotImplementedError, RuntimeError):
        # Networks without Python code do not run there: compute once.
        device = next((tensor.device for tensor in segmentor.buffers()), torch.device("cpu"))
        return _count(copy.deepcopy(segmentor), size, device)


def _count(segmentor: nn.Module, size: tuple[int, int], device: torch.device) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        segmentor.eval()(torch.zeros(1, getattr(segmentor, "in_channels", 3), *size, device=device))
    return int(counter.get_total_flops())
