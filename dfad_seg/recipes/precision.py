"""Which precision is fast here: `precision: auto` becomes fp32 or bf16."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from lightning_fabric.utilities.rank_zero import rank_zero_only

from dfad_seg.config import Config

WORTHWHILE = 1.2
"""bf16 is taken if it is faster than fp32 by this factor: the casts around it cost something too."""


def resolve_precision(config: Config, *, cuda: bool, decided: str | None = None) -> str:
    """`config.precision`, or for `auto` what this machine is fast in, with a message.

    A GPU takes bf16 if its hardware has it. A CPU is measured, once per process and for about a second, as a CPU may
    know bf16 instructions and still be slower with them. Several processes must decide alike, so they ask for AMX
    instead.

    Args:
        cuda: whether the run is on a GPU.
        decided: what the run decided when it began, if it is resumed.
    """
    if config.precision != "auto":
        return config.precision
    if decided is not None:
        return decided
    if cuda:
        fast, why = torch.cuda.is_bf16_supported(including_emulation=False), "as this GPU's hardware says"
    elif config.devices * config.num_nodes > 1:
        fast, why = torch.cpu._is_amx_tile_supported(), "by whether this CPU has AMX"
    else:
        gain = bf16_gain()
        fast, why = gain >= WORTHWHILE, f"bf16 autocast is {gain:.2f}x as fast as fp32 on this CPU"
    precision = "bf16-mixed" if fast else "32-true"
    rank_zero_only(print)(f"precision auto: {precision}, {why}")
    return precision


@functools.cache
def bf16_gain() -> float:
    """How many times as fast as in fp32 a training step of a convolution runs under bf16 autocast on this CPU."""
    images = torch.randn(8, 128, 32, 32).to(memory_format=torch.channels_last)
    weight = torch.randn(128, 128, 3, 3).to(memory_format=torch.channels_last).requires_grad_()

    def step(enabled: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = F.conv2d(images, weight, padding=1).float().sum()
        torch.autograd.grad(loss, weight)

    return _seconds(lambda: step(False)) / _seconds(lambda: step(True))


def _seconds(run: Callable[[], None]) -> float:
    """The fastest of the runs that fit into 0.4 seconds; at least three, after one that is not counted."""
    run()
    times: list[float] = []
    while len(times) < 3 or sum(times) < 0.4:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
