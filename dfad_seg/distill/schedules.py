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


def _half_cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


SCHEDULES: dict[str, Kind[Schedule]] = {
    "constant": Kind(Constant, lambda o, iterations: lambda i: 1.0),
    "step": Kind(Step, lambda o, iterations: lambda i: o.gamma ** (i // o.every)),
    "poly": Kind(Poly, lambda o, iterations: lambda i: o.end + (1 - o.end) * max(0.0, 1 - i / iterations) ** o.power),
    "cosine": Kind(Cosine, lambda o, iterations: lambda i: o.end + (1 - o.end) * _half_cosine(i / iterations)),
}
"""By `schedule.type`; `build(options, iterations=N)`."""


def build_schedule(chosen: Chosen, iterations: int) -> Schedule:
    """The factor on learning rates by iteration, after a linear warm-up over the first ones."""
    inner, warmup = SCHEDULES[chosen.name].build(chosen.options, iterations=iterations), chosen.options.warmup
    if not warmup:
        return inner
    return lambda iteration: inner(iteration) * min(1.0, (iteration + 1) / warmup)
