"""The players' optimisers, and learning rates as pure functions of the iteration, never out of step."""

import math
from collections.abc import Callable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from dfad_seg.common.values import Chosen, Fraction, Iterations, Kind, NonNegative, Rate, Weight, options


@options
class OptimizerOptions:
    """What every optimiser takes."""

    lr: Rate
    """Learning rate before the schedule's factor."""
    weight_decay: Weight = 0.0
    """Decoupled in adamw."""


@options
class SGDOptions(OptimizerOptions):
    """Stochastic gradient descent."""

    momentum: Fraction = 0.9
    """Of the moving average of gradients."""


@options
class AdamOptions(OptimizerOptions):
    """Adam, or with decoupled weight decay AdamW."""

    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decays of the two moments."""


# Fused: each number is read and written once.
OPTIMIZERS: dict[str, Kind[Optimizer]] = {
    "sgd": Kind(SGDOptions, lambda o, params: SGD(params, o.lr, o.momentum, weight_decay=o.weight_decay, fused=True)),
    "adam": Kind(AdamOptions, lambda o, params: Adam(params, o.lr, o.betas, weight_decay=o.weight_decay, fused=True)),
    "adamw": Kind(AdamOptions, lambda o, params: AdamW(params, o.lr, o.betas, weight_decay=o.weight_decay, fused=True)),
}
"""By `type` of an optimiser's section; `build(options, params=parameters)`."""


def build_optimizer(chosen: Chosen, network: nn.Module) -> Optimizer:
    """The optimiser over those of a network's parameters that are to be trained."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return OPTIMIZERS[chosen.name].build(chosen.options, params=trained)


Schedule = Callable[[int], float]


@options
class Constant:
    """Always 1."""

    warmup: NonNegative = 0
    """First iterations, in which the factor rises from 0."""


@options
class Step(Constant):
    """gamma ** (iteration // every): DFAD's decay, ×0.1 every 100 × 50 iterations."""

    every: Iterations
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
