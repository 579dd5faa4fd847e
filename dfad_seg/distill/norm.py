"""What BatchNorm and gradients of a network do while another one is trained through it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def batch_norm_mode(network: nn.Module, mode: str) -> Iterator[None]:
    """What the BatchNorm layers of a network in training mode do inside the block.

    - `"update"`: normalise by batch statistics and update the running ones, as in ordinary training;
    - `"batch"`: normalise by batch statistics and leave the running ones alone;
    - `"running"`: normalise by the running statistics, as in evaluation.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    try:
        for layer in layers:
            if mode == "batch":
                layer.track_running_stats = False
            elif mode == "running":
                layer.training = False
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
            layer.training = True


@contextmanager
def no_parameter_gradients(network: nn.Module) -> Iterator[None]:
    """Gradients flow through the network to its input, and none to its parameters."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
