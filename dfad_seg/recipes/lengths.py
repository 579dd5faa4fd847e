"""What a run will take, measured on three iterations, and a run that is as long as one has time for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from dfad_seg.common.errors import InputError
from dfad_seg.common.values import plain
from dfad_seg.config import Config, parse_config
from dfad_seg.distill import DataFree
from dfad_seg.recipes.auto_batch import measured
from dfad_seg.recipes.provenance import student_steps

ITERATIONS = 3
MORE = 2
"""Steps on remembered images beyond a config's own, to tell what one of them takes."""
PASSES = 6
"""A cut by agreement passes each of its images forwards and backwards through the teacher about so often."""


@dataclass(frozen=True)
class Price:
    """What a data-free run takes on this machine: training alone, no evaluation or report."""

    seconds: float
    """Of the game."""
    cutting: float
    """Seconds before it, in which a student is cut."""
    peak: int
    """Bytes of memory."""

    def __str__(self) -> str:
        cut = f", {self.cutting / 60:.1f} of them to cut the student" if self.cutting else ""
        minutes = (self.seconds + self.cutting) / 60
        return f"about {minutes:.1f} minutes of training{cut}; {self.peak / 2**30:.1f} GiB of memory"


def price(config: Config) -> Price:
    """What the run will take, from three iterations.

    Raises:
        InputError: the method is not data-free, or the networks cannot be built.
    """
    if not isinstance(config, DataFree):
        raise InputError(f"only data-free runs are timed beforehand, and method is {config.method}.")
    first = measured(config, ITERATIONS)
    each, remembered = first.seconds, 0.0
    steps = student_steps(config)
    replay = config.replay
    if replay is not None and len({again for _, again in steps}) > 1:
        more = dataclasses.replace(replay, steps=replay.steps + MORE, final_steps=None)
        longer = dataclasses.replace(config, replay=more)  # type: ignore[call-arg]
        remembered = max(0.0, measured(longer, ITERATIONS).seconds - each) / MORE
        each -= remembered * replay.steps
    seconds = sum(each + remembered * again for _, again in steps)
    cutting = 0.0
    if config.cuts and config.student is not None and config.student.options.needs_images:
        options = config.student.options
        cutting = first.seconds * (options.rehearsal + PASSES * options.images / config.batch_size) / 2
    return Price(seconds, cutting, first.peak)


def with_minutes(config: Config, minutes: float) -> Config:
    """The config with the lengths that take about so many minutes here; raises InputError as `price`."""
    if not minutes > 0:
        raise InputError(f"--minutes is {minutes:g}; more than 0 is needed.")
    found = price(config)
    return scaled(config, 60 * minutes / (found.seconds + found.cutting))


def scaled(config: Config, factor: float) -> Config:
    """The config with all lengths times a factor: iterations, warm-up, memory, average, intervals, rehearsal."""
    iterations = max(1, round(config.iterations * factor))
    factor = iterations / config.iterations
    values = plain(config) | {"iterations": iterations}
    _times(values, ("save_every", "preview_every"), factor)
    _times(values.get("evaluation", {}), ("every",), factor)
    _times(values["schedule"], ("warmup", "every"), factor)
    if values["schedule"].get("warmup"):
        values["schedule"]["warmup"] = min(values["schedule"]["warmup"], max(1, iterations // 4))
    if isinstance(config, DataFree) and config.replay is not None:
        least = max(config.batch_of(size) for size in config.progressive_sizes or (config.image_size,))
        values["replay"]["size"] = max(least, round(config.replay.size * min(1.0, factor)))
    if config.ema_decay is not None:
        # The average reaches back over the same share of the run.
        values["ema_decay"] = min(0.9999, max(0.5, 1 - (1 - config.ema_decay) / factor))
    if config.cuts:
        _times(values["student"], ("rehearsal",), factor)
    return parse_config(values)


def _times(values: dict[str, Any], names: tuple[str, ...], factor: float) -> None:
    for name in names:
        if values.get(name):
            values[name] = max(1, round(values[name] * factor))
