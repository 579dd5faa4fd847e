"""How fast a network is on this machine: the one timer, and the one switch for denormal numbers."""

import ctypes
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Count numbers below 1e-38 as zero inside the block: weights that decayed so far slow a processor forty times.

    The setting belongs to a thread: it is made for the caller's and for those that torch shares work out to, and taken
    back at the end. Where the caller's thread counts so already, as in every command, nothing is changed.
    """
    if not bool(torch.tensor(1e-40) * 1) or not torch.set_flush_denormal(True):  # a processor without the setting
        yield
        return
    try:
        _in_worker_threads(True)
        yield
    finally:
        torch.set_flush_denormal(False)
        _in_worker_threads(False)


def _in_worker_threads(on: bool) -> None:
    """Make the setting in torch's OpenMP threads, which have it from their maker, as it was when they were made.

    Other libraries of threads than GNU's are left as they are.
    """
    folder = Path(torch.__file__).parent
    libraries = [*(folder / "lib").glob("libgomp*.so*"), *(folder.parent / "torch.libs").glob("libgomp*.so*")]
    if torch.get_num_threads() == 1 or not libraries:
        return
    work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: torch.set_flush_denormal(on) and None)
    ctypes.CDLL(str(libraries[0])).GOMP_parallel(work, None, torch.get_num_threads(), 0)


@dataclass(frozen=True)
class Latency:
    """Times of one image's forward pass.

    Attributes:
        fastest, median: milliseconds; other work on the machine disturbs the former least.
    """

    fastest: float
    median: float
    passes: int

    @property
    def scatter(self) -> float:
        """By what share the median is slower; above a quarter the figure is to be taken with care."""
        return self.median / self.fastest - 1

    def __str__(self) -> str:
        note = f" (passes scatter: median {self.median:.1f} ms)" if self.scatter > 0.25 else ""
        return f"{self.fastest:.1f} ms{note}"


def measure_latency(
    call: Callable[[Tensor], Any],
    size: tuple[int, ...],
    *,
    device: torch.device | str = "cpu",
    passes: int = 20,
    seconds: float = 10.0,
) -> Latency:
    """Time `call(images)` on one image of `size` (K, H, W), or (H, W) of RGB, without gradients, after two passes that
    do not count.

    Args:
        call: a network in evaluation mode, or any function of images (1, K, H, W) in [0, 1] on `device`.
        passes: timed ones at most; three at least.
        seconds: after which no further pass begins.
    """
    device = torch.device(device)
    images = torch.rand(1, *(3, *size)[-3:], generator=torch.Generator().manual_seed(0)).to(device)
    spent: list[float] = []
    with torch.inference_mode(), denormals_as_zero():
        for _ in range(2):
            call(images)
        end = time.monotonic() + seconds
        while len(spent) < 3 or (len(spent) < passes and time.monotonic() < end):
            _wait(device)
            start = time.perf_counter()
            call(images)
            _wait(device)
            spent.append(1000 * (time.perf_counter() - start))
    return Latency(min(spent), statistics.median(spent), len(spent))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
