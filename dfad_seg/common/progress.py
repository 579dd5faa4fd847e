"""Progress with an ETA: a bar on a terminal, now and then a plain line elsewhere."""

import itertools
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch.distributed as processes
from tqdm import tqdm

from dfad_seg.common.errors import printable

SECONDS_BETWEEN_LINES = 20
LINE = "{desc}: {unit} {n_fmt}/{total_fmt}, {elapsed} spent, ETA {remaining}{postfix}"


class ProgressReport:
    """Shows how far a piece of work is, of which `start` units were done before; use as a context manager.

    `costs` of all units, where they differ, are what the ETA goes by. Of several processes the first one speaks.
    """

    def __init__(
        self, description: str, total: int, *, start: int = 0, unit: str = "iteration", costs: Sequence[float] = ()
    ) -> None:
        look: dict[str, Any] = {"file": getattr(sys.stderr, "terminal", sys.stderr), "dynamic_ncols": True}
        if not sys.stderr.isatty():
            look = {"file": _Lines(), "bar_format": LINE, "mininterval": SECONDS_BETWEEN_LINES, "miniters": 1}
        about: dict[str, Any] = {"desc": printable(description, 80), "unit": unit, "total": total, "initial": start}
        other = processes.is_initialized() and processes.get_rank() > 0
        self._bar = _Bar(**about, disable=other, **look)
        self._bar.spent = [0.0, *itertools.accumulate(costs)]

    def __enter__(self) -> "ProgressReport":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.leave = kind is None
        self._bar.close()

    def note(self, text: str) -> None:
        """Text to show beside the bar, such as the losses."""
        self._bar.set_postfix_str(text, refresh=False)

    def advance_to(self, done: int) -> None:
        """`done` units are finished."""
        self._bar.update(done - self._bar.n)

    def advance(self, units: int = 1) -> None:
        """`units` more are finished."""
        self._bar.update(units)


class _Bar(tqdm):
    monitor_interval = 0  # no thread, which processes that are forked meanwhile would lack
    spent: Sequence[float] = (0.0,)
    """After so many units; of no use where it ends with 0."""

    @property
    def format_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = super().format_dict
        if self.spent[-1]:
            done, left = self.spent[self.n] - self.spent[self.initial], self.spent[-1] - self.spent[self.n]
            if done and left:  # tqdm makes the ETA of the units that are left and this rate
                found["rate"] = (self.total - self.n) * done / (left * found["elapsed"])
        return found


class _Lines:
    """A log: each state of the bar is a line. One that is full costs no result."""

    def write(self, text: str) -> None:
        if line := text.strip("\r\n "):
            with suppress(OSError):
                print(line, file=sys.stderr, flush=True)

    def flush(self) -> None:
        pass
