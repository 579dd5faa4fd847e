"""The few things that several processes must agree on."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dfad_seg.distill.hooks import Hooks


def launched(fabric: Fabric | None) -> Fabric:
    """A launched Fabric as it is; for None, one process on the best device."""
    if fabric is None:
        fabric = Fabric(accelerator="auto", devices=1)
        fabric.launch()
    return fabric


def unwrap(network: nn.Module) -> nn.Module:
    """The network inside Fabric's wrapper (and the data-parallel one), or the network itself."""
    inner = getattr(network, "module", None)
    return inner if isinstance(inner, nn.Module) else network


def broadcast_buffers(fabric: Fabric, *networks: nn.Module) -> None:
    """Give every rank the running statistics (and other buffers) of rank 0.

    Data-parallel training averages gradients only; forward passes outside its wrapper let the statistics differ.
    """
    if fabric.world_size == 1:
        return
    for network in networks:
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, src=0)


def agree_to_stop(fabric: Fabric, hooks: Hooks, iteration: int) -> bool:
    """Whether any rank was asked to stop. Several ranks compare notes at log points only, as that costs a stall."""
    asked = hooks.stop_requested()
    if fabric.world_size == 1:
        return asked
    if iteration % max(1, hooks.log_every):
        return False
    return bool(reduced(fabric, torch.tensor(float(asked), device=fabric.device), "max") > 0)


def reduced(fabric: Fabric, value: Tensor, operation: str) -> Tensor:
    """A tensor combined over all ranks: `"mean"`, `"sum"` or `"max"`."""
    result = fabric.all_reduce(value, reduce_op=operation)
    assert isinstance(result, Tensor)
    return result
