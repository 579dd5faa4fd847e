"""`--profile N`: where the time of N iterations goes."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from dfad_seg.common.errors import InputError

WARM_UP = 2
"""Iterations before the profiled ones: the first allocate memory and choose kernels."""
SHOWN = 10


class IterationProfile:
    """Records iterations WARM_UP + 1 … WARM_UP + `iterations` of this process by torch's profiler.

    Afterwards the Chrome trace is in `path` (for chrome://tracing or ui.perfetto.dev) and the operators that took most
    time of their own are printed. A run that ends earlier leaves what it has. With 0 iterations nothing is recorded.
    """

    def __init__(self, path: Path, iterations: int, last: int) -> None:
        if iterations < 0 or (iterations and last <= WARM_UP):
            raise InputError(f"--profile {iterations} of {last} iterations: it begins after {WARM_UP}, and needs one.")
        self._path = path
        self._iterations = iterations
        self._done = 0
        self._profile: profile | None = None

    def __enter__(self) -> IterationProfile:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def advance(self) -> None:
        """To be called after each iteration."""
        self._done += 1
        if not self._iterations:
            return
        if self._done == WARM_UP:
            activities = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(activities=activities)
            self._profile.start()
        elif self._done == WARM_UP + self._iterations:
            self.finish()

    def finish(self) -> None:
        """Write and print, if that has not been done."""
        if self._profile is None:
            return
        recorded, self._profile = self._profile, None
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        recorded.stop()
        partial = self._path.with_name(f".{self._path.name}")
        recorded.export_chrome_trace(str(partial))
        os.replace(partial, self._path)
        key = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        print(recorded.key_averages().table(sort_by=key, row_limit=SHOWN, max_name_column_width=50))
        print(f"trace of {self._done - WARM_UP} iterations: {self._path}")
