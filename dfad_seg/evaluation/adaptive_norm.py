"""BatchNorm that leans on the statistics of the image at hand, for networks whose training images were others.

A student of generated images meets real ones of another brightness or contrast, and its running statistics do not fit.
Each image's own statistics are known at inference, without any data set (prediction-time BatchNorm, Nado et al. 2020;
mixed with the running ones as by Schneider et al. 2020, equation 3, with a fixed weight and one image for a batch).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dfad_seg.common.errors import InputError

FEWEST_POSITIONS = 64
"""Smaller maps keep the running statistics: those of a pooled 1×1 map would be of a single value."""


@contextmanager
def adaptive_batch_norm(network: Any, weight: float) -> Iterator[None]:
    """Inside, BatchNorm layers in evaluation mode normalise each image by its own and the running statistics, mixed.

    With an image's mean m and variance v of a channel over positions, the running μ and σ², and the weight a, the
    layer normalises by the mean (1 − a) μ + a m and the variance (1 − a) σ² + a v + a (1 − a) (m − μ)², which are
    those of the mixture. The network itself stays as it is.

    Args:
        network: with BatchNorm layers, if the weight is above 0.
        weight: a in [0, 1]; 0 is plain BatchNorm, 1 instance normalisation.

    Raises:
        InputError: the weight is above 0, and the network shows no BatchNorm layer.
    """
    if not weight:
        yield
        return
    modules = network.modules() if isinstance(network, nn.Module) else ()
    layers = [layer for layer in modules if isinstance(layer, _BatchNorm) and layer.running_mean is not None]
    if not layers:
        raise InputError(
            "adaptive_norm adapts BatchNorm layers, and this network shows none. Leave adaptive_norm at 0."
        )
    handles = [layer.register_forward_pre_hook(partial(_prepare, weight)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _prepare(weight: float, layer: _BatchNorm, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """Inputs that plain BatchNorm normalises as the adapted layer would normalise the given ones."""
    (x,) = inputs
    if layer.training or x.dim() != 4 or x.shape[2] * x.shape[3] < FEWEST_POSITIONS:
        return None
    assert layer.running_mean is not None and layer.running_var is not None
    mean, var = (running.view(1, -1, 1, 1) for running in (layer.running_mean, layer.running_var))
    own_var, own_mean = torch.var_mean(x.float(), dim=(2, 3), correction=0, keepdim=True)
    gap = own_mean - mean
    mixed_var = (1 - weight) * var + weight * own_var + weight * (1 - weight) * gap.square()
    scale = ((var + layer.eps) / (mixed_var + layer.eps)).sqrt()
    return (((x - (mean + weight * gap)) * scale + mean).to(x.dtype),)
