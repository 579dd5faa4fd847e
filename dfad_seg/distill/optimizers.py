"""The players' optimisers."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from dfad_seg.common.values import Chosen, Fraction, Kind, Rate, Weight, options


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
