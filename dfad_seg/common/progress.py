"""Progress with an ETA: a bar on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 20


class ProgressReport:
    """Shows how far a piece of work is, of which `start` units were done before; use as a context manager."""

    def __init__(
        self, description: str, total: int, *, start: int = 0, unit: str = "iteration", enabled: bool = True
    ) -> None:
        self.description, self.total, self.unit, self.enabled = description, total, unit, enabled
        self._done = self._start = start
        self._note = ""
        self._began = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if enabled and (sys.stderr.isatty() or Console().is_jupyter):
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=Console(file=getattr(sys.stderr, "terminal", sys.stderr)),
            )
            self._task = self._bar.add_task(description, total=total, completed=start, note="")

    def __enter__(self) -> ProgressReport:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.enabled and kind is None and self._done > self._start:
            self._print_line()

    def note(self, text: str) -> None:
        """Text to show beside the bar, such as the losses."""
        self._note = text
        if self._bar is not None:
            self._bar.update(self._task, note=text)

    def advance_to(self, done: int) -> None:
        """`done` units are finished."""
        self._done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
        elif self.enabled and time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._print_line()

    def advance(self, units: int = 1) -> None:
        """`units` more are finished."""
        self.advance_to(self._done + units)

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        spent = self._last_line - self._began
        left = spent / max(1, self._done - self._start) * (self.total - self._done)
        text = f"{self.description}: {self.unit} {self._done}/{self.total}, {_clock(spent)} spent, ETA {_clock(left)}"
        with suppress(OSError):  # a terminal that is gone or a log that is full costs no result
            print(text + (f", {self._note}" if self._note else ""), file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
