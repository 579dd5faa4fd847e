"""Times, memory, floating-point operations and the rate of this machine's matrix products."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from throughput.ours import our_steps

PLAIN = frozenset({"everything"})


def warm_up(step: Callable[[], None], times: int, device: torch.device) -> None:
    """Run what is slow at first: kernels are chosen, networks compiled."""
    for _ in range(times):
        step()
    _wait(device)


def time_steps(step: Callable[[], None], *, steps: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each call: by the clock, and of processor time (all threads).

    Processor time hardly changes when other processes take their share of the cores meanwhile.
    """
    wall, cpu = [], []
    for _ in range(steps):
        _wait(device)
        start, start_cpu = time.perf_counter(), time.process_time()
        step()
        _wait(device)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return {"wall_s": wall, "cpu_s": cpu}


def peak_memory(device: torch.device) -> int:
    """Bytes: of the allocator on a GPU, of the whole process (its largest resident set) on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not getrusage, whose maximum a new process inherits from the one that started it.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def resident_memory() -> int:
    """Bytes that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a large square matrix product: the best of several."""
    n, repeats = (8192, 10) if device.type == "cuda" else (2048, 5)
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    warm_up(lambda: torch.mm(a, b), 2, device)
    seconds = time_steps(lambda: torch.mm(a, b), steps=repeats, device=device)["wall_s"]
    return 2 * n**3 / min(seconds)


def flops_per_image(pair: str, size: tuple[int, int]) -> dict[str, float]:
    """FLOPs that one image of a student step and one of a generator step need.

    Counted while the steps run on the plain networks: convolutions and matrix products, forward and backward; in the
    generator's step no gradients of the teacher's and the student's weights. What a rewrite saves does not lower it.
    """
    batch = 2  # BatchNorm after global pooling needs two
    counts = {}
    for name, step in zip(
        ("student", "generator"), our_steps(pair, batch, size, torch.device("cpu"), PLAIN), strict=True
    ):
        with FlopCounterMode(display=False) as counter:
            step()
        counts[name] = counter.get_total_flops() / batch
    return counts


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
