"""The players' optimisers."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from dfad_seg.common.errors import InputError
from dfad_seg.common.values import Chosen, Fraction, Kind, Rate, Weight, options


@options
class OptimizerOptions:
    """What every optimiser takes."""

    lr: Rate
    """Learning rate before the schedule's factor."""
    weight_decay: Weight = 0.0
    """Decoupled in adamw."""
    lr_multipliers: dict[str, Weight] = field(default_factory=dict)
    """Factors on lr by a part of the parameters' names, such as {encoder: 0.1}; the first that fits counts, and 0
    freezes."""


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
    "sgd": Kind(SGDOptions, lambda o, groups: SGD(groups, o.lr, o.momentum, weight_decay=o.weight_decay, fused=True)),
    "adam": Kind(AdamOptions, lambda o, groups: Adam(groups, o.lr, o.betas, weight_decay=o.weight_decay, fused=True)),
    "adamw": Kind(AdamOptions, lambda o, groups: AdamW(groups, o.lr, o.betas, weight_decay=o.weight_decay, fused=True)),
}
"""By `type` of an optimiser's section; `build(options, groups=parameter groups)`."""


def build_optimizer(chosen: Chosen, network: nn.Module) -> Optimizer:
    """The optimiser over a network's parameters.

    Raises:
        InputError: a multiplier fits no parameter.
    """
    return OPTIMIZERS[chosen.name].build(chosen.options, groups=parameter_groups(chosen.options, network))


def parameter_groups(options: OptimizerOptions, network: nn.Module) -> list[dict[str, Any]]:
    """The parameters to train, by learning rate: first those without a multiplier.

    Raises:
        InputError: a multiplier fits no parameter.
    """
    multipliers = options.lr_multipliers
    groups: dict[str | None, list[nn.Parameter]] = {None: []} | {key: [] for key in multipliers}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups[next((key for key in multipliers if key in name), None)].append(parameter)
    if empty := [key for key, parameters in groups.items() if key is not None and not parameters]:
        parts = dict.fromkeys(".".join(name.split(".")[:2]) for name, _ in network.named_parameters())
        raise InputError(
            f"lr_multipliers: no parameter's name has '{empty[0]}' in it (or all of them fit an earlier key). "
            f"Names begin with {', '.join(parts)}."
        )
    return [
        {"params": parameters, "lr": options.lr * (1 if key is None else multipliers[key])}
        for key, parameters in groups.items()
        if parameters
    ]
