"""Config to optimisers and their learning rates."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from dfad_seg.common.errors import InputError
from dfad_seg.config import OptimizerConfig, ScheduleConfig
from dfad_seg.distill.schedules import Schedule, build_schedule


def build_optimizer(section: OptimizerConfig, network: nn.Module) -> Optimizer:
    """The optimiser over a network's parameters; fused, which reads and writes each number once.

    Raises:
        InputError: a multiplier fits no parameter.
    """
    parameters = parameter_groups(section, network)
    if section.type == "sgd":
        momentum = 0.9 if section.momentum is None else section.momentum
        return SGD(parameters, lr=section.lr, momentum=momentum, weight_decay=section.weight_decay, fused=True)
    build = Adam if section.type == "adam" else AdamW
    betas = section.betas or (0.9, 0.999)
    return build(parameters, lr=section.lr, betas=betas, weight_decay=section.weight_decay, fused=True)


def parameter_groups(section: OptimizerConfig, network: nn.Module) -> list[dict[str, Any]]:
    """The parameters to train, by learning rate: first those without a multiplier.

    Raises:
        InputError: a multiplier fits no parameter.
    """
    groups: dict[str | None, list[nn.Parameter]] = {None: []} | {key: [] for key in section.lr_multipliers}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups[next((key for key in section.lr_multipliers if key in name), None)].append(parameter)
    if empty := [key for key, parameters in groups.items() if key is not None and not parameters]:
        parts = dict.fromkeys(".".join(name.split(".")[:2]) for name, _ in network.named_parameters())
        raise InputError(
            f"lr_multipliers: no parameter's name has '{empty[0]}' in it (or all of them fit an earlier key). "
            f"Names begin with {', '.join(parts)}."
        )
    return [
        {"params": parameters, "lr": section.lr * (1 if key is None else section.lr_multipliers[key])}
        for key, parameters in groups.items()
        if parameters
    ]


def schedule_of(section: ScheduleConfig, iterations: int) -> Schedule:
    """The learning rate factor by iteration."""
    return build_schedule(**section.model_dump(exclude_none=True), iterations=iterations)
