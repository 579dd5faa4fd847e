"""Learning rates as pure functions of the iteration: nothing to save, nothing to get out of step on resume."""

from __future__ import annotations

import math
from collections.abc import Callable

from dfad_seg.common.values import Chosen, Kind, NonNegative, Positive, Rate, Weight, options

Schedule = Callable[[int], float]


@options
class Constant:
    """Always 1."""

    warmup: NonNegative = 0
    """First iterations, in which the factor rises from 0."""


@options
class Step(Constant):
    """gamma ** (iteration // every): DFAD's decay, ×0.1 every 100 × 50 iterations."""

    every: Positive
    """Iterations between two decays."""
    gamma: Rate = 0.1
    """Factor of each."""


@options
class Poly(Constant):
    """end + (1 − end) · (1 − iteration / iterations) ** power: DeepLab's decay (Chen et al. 2017)."""

    power: Rate = 0.9
    """The exponent."""
    end: Weight = 0.0
    """The last factor."""


@options
class Cosine(Constant):
    """Half a cosine from 1 to `end` (Loshchilov and Hutter 2017, without restarts)."""

    end: Weight = 0.0
    """The last factor."""


def _step(options: Step, iterations: int) -> Schedule:
    return lambda iteration: options.gamma ** (iteration // options.every)


def _poly(options: Poly, iterations: int) -> Schedule:
    return lambda i: options.end + (1 - options.end) * max(0.0, 1 - i / iterations) ** options.power


def _cosine(options: Cosine, iterations: int) -> Schedule:
    return lambda i: options.end + (1 - options.end) * 0.5 * (1 + math.cos(math.pi * min(1.0, i / iterations)))


SCHEDULES: dict[str, Kind[Schedule]] = {
    "constant": Kind(Constant, lambda options, iterations: lambda iteration: 1.0),
    "step": Kind(Step, _step),
    "poly": Kind(Poly, _poly),
    "cosine": Kind(Cosine, _cosine),
}
"""By `schedule.type`; `build(options, iterations=N)`."""


def build_schedule(chosen: Chosen, iterations: int) -> Schedule:
    """The factor on learning rates by iteration, after a linear warm-up over the first ones."""
    inner, warmup = SCHEDULES[chosen.name].build(chosen.options, iterations=iterations), chosen.options.warmup
    if not warmup:
        return inner
    return lambda iteration: inner(iteration) * min(1.0, (iteration + 1) / warmup)
