"""`--profile N`: where the time of N iterations goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from dfad_seg.common.errors import InputError

WARM_UP = 2
"""Iterations before the profiled ones: the first allocate memory and choose kernels."""
SHOWN = 10


def profiled(path: Path, iterations: int, last: int) -> AbstractContextManager[Callable[[], None]]:
    """Records iterations WARM_UP + 1 … WARM_UP + `iterations`; gives what is to be called after each iteration.

    Then the Chrome trace is in `path` (for chrome://tracing or ui.perfetto.dev) and the operators that took most time
    of their own are printed. A run that ends earlier leaves what it has.

    Raises:
        InputError: `last` iterations are too few; at once, before the context is entered.
    """
    if iterations < 0 or (iterations and last <= WARM_UP):
        raise InputError(f"--profile {iterations} of {last} iterations: it begins after {WARM_UP}, and needs one.")
    return _profiled(path, iterations) if iterations else nullcontext(lambda: None)


@contextmanager
def _profiled(path: Path, iterations: int) -> Iterator[Callable[[], None]]:
    def show(recorded: profile) -> None:
        partial = path.with_name(f".{path.name}")
        recorded.export_chrome_trace(str(partial))
        os.replace(partial, path)
        key = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        print(recorded.key_averages().table(sort_by=key, row_limit=SHOWN, max_name_column_width=50))
        print(f"trace of {recorded.step_num - WARM_UP} iterations: {path}")

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    when = schedule(wait=0, warmup=WARM_UP, active=iterations, repeat=1)
    with profile(activities=activities, schedule=when, on_trace_ready=show) as recorder:
        yield recorder.step
