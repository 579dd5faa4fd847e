"""Learning rates as pure functions of the iteration: nothing to save, nothing to get out of step on resume."""

from __future__ import annotations

import math
from collections.abc import Callable

from dfad_seg.common.errors import choose

Schedule = Callable[[int], float]


def constant() -> Schedule:
    """Always 1."""
    return lambda iteration: 1.0


def step(*, every: int, gamma: float = 0.1) -> Schedule:
    """gamma ** (iteration // every): DFAD's decay, ×0.1 every 100 × 50 iterations."""
    return lambda iteration: gamma ** (iteration // every)


def poly(*, iterations: int, power: float = 0.9, end: float = 0.0) -> Schedule:
    """end + (1 − end) · (1 − iteration / iterations) ** power: DeepLab's decay (Chen et al. 2017)."""
    return lambda iteration: end + (1 - end) * max(0.0, 1 - iteration / iterations) ** power


def cosine(*, iterations: int, end: float = 0.0) -> Schedule:
    """Half a cosine from 1 to `end` (Loshchilov and Hutter 2017, without restarts)."""
    return lambda iteration: end + (1 - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, iteration / iterations)))


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "step": step,
    "poly": poly,
    "cosine": cosine,
}


def build_schedule(type: str, *, iterations: int, warmup: int = 0, **options: float) -> Schedule:
    """A named schedule over `iterations`, after a linear warm-up over its first `warmup` iterations.

    Raises:
        InputError: unknown name.
    """
    build = choose(SCHEDULES, type, "schedule.type")
    inner = build(iterations=iterations, **options) if type in ("poly", "cosine") else build(**options)
    if not warmup:
        return inner
    return lambda iteration: inner(iteration) * min(1.0, (iteration + 1) / warmup)
