"""Training on real images: a teacher from labels, and knowledge distillation with data as the control."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from dfad_seg.distill.hooks import Hooks
from dfad_seg.distill.schedules import Schedule
from dfad_seg.distill.seeds import iteration_rng
from dfad_seg.distill.steps import student_step, supervised_step
from dfad_seg.distill.training import Training, after_iteration, begin, evaluate_pending
from dfad_seg.distill.world import unwrap
from dfad_seg.objectives import Discrepancy, LabelLoss, LogitAdjustment

Batch = dict[str, Any]
"""`image` (N, 3, H, W) in [0, 1] and `mask` (N, H, W)."""


@dataclass
class TrainingSettings:
    """The numbers of training with data."""

    iterations: int
    clip_norm: float | None = None
    ema_decay: float | None = None
    answer_pooling: int = 1
    """Of the distillation's loss, see `student_step`."""
    seed: int = 0


def train_supervised(
    *,
    fabric: Fabric,
    network: nn.Module,
    batches_from: Callable[[int], Iterable[Batch]],
    optimizer: Optimizer,
    loss_fn: LabelLoss,
    schedule: Schedule,
    settings: TrainingSettings,
    state: dict[str, Any] | None = None,
    hooks: Hooks | None = None,
) -> nn.Module:
    """Train a network on labelled images; returns the network to keep, in eval mode.

    Args:
        fabric: device, precision and processes; already launched.
        network: trained in place.
        batches_from: `(iteration) -> batches` from that iteration on, at least as many as are left.
        optimizer: over the network's parameters.
        loss_fn: `(logits, labels) -> scalar`.
        schedule, settings, state, hooks: as in `distil_data_free`.
    """

    def step(network: nn.Module, optimizer: Optimizer, batch: Batch) -> dict[str, Tensor]:
        return supervised_step(
            model=network,
            images=batch["image"],
            labels=batch["mask"],
            optimizer=optimizer,
            loss_fn=loss_fn,
            clip_norm=settings.clip_norm,
            backward=fabric.backward,
            autocast=fabric.autocast,
        )

    return _train(fabric, network, batches_from, optimizer, step, schedule, settings, state, hooks or Hooks())


def distil_with_data(
    *,
    fabric: Fabric,
    teacher: nn.Module,
    student: nn.Module,
    batches_from: Callable[[int], Iterable[Batch]],
    optimizer: Optimizer,
    student_loss: Discrepancy,
    schedule: Schedule,
    settings: TrainingSettings,
    adjustment: LogitAdjustment | None = None,
    state: dict[str, Any] | None = None,
    hooks: Hooks | None = None,
) -> nn.Module:
    """Knowledge distillation on real images: the same student step as the data-free loop; labels are not used."""
    teacher = teacher.to(fabric.device)

    def step(network: nn.Module, optimizer: Optimizer, batch: Batch) -> dict[str, Tensor]:
        result = student_step(
            student=network,
            teacher=teacher,
            images=batch["image"],
            optimizer=optimizer,
            loss_fn=student_loss,
            adjustment=adjustment,
            pooling=settings.answer_pooling,
            clip_norm=settings.clip_norm,
            backward=fabric.backward,
            autocast=fabric.autocast,
        )
        if adjustment is not None:
            adjustment.observe(result["teacher_logits"])
        del result["teacher_logits"], result["teacher_images"]
        return result

    others: dict[str, nn.Module] = {} if adjustment is None else {"adjustment": adjustment.to(fabric.device)}
    return _train(fabric, student, batches_from, optimizer, step, schedule, settings, state, hooks or Hooks(), others)


def _train(
    fabric: Fabric,
    network: nn.Module,
    batches_from: Callable[[int], Iterable[Batch]],
    optimizer: Optimizer,
    step: Callable[[nn.Module, Optimizer, Batch], dict[str, Tensor]],
    schedule: Schedule,
    settings: TrainingSettings,
    state: dict[str, Any] | None,
    hooks: Hooks,
    others: dict[str, nn.Module] | None = None,
) -> nn.Module:
    wrapped, optimizer = fabric.setup(network, optimizer)
    training = Training(
        networks={"student": unwrap(wrapped)} | (others or {}),
        optimizers={"student": optimizer},
        schedule=schedule,
        iterations=settings.iterations,
        ema_decay=settings.ema_decay,
    )
    begin(training, state)
    training.networks["student"].train()
    evaluate_pending(training, hooks=hooks)
    left = settings.iterations - training.iteration
    for batch in itertools.islice(batches_from(training.iteration), left):
        rates = training.set_rates()
        iteration_rng(settings.seed, fabric.global_rank, training.iteration, fabric.device)
        on_device = {name: batch[name].to(fabric.device, non_blocking=True) for name in ("image", "mask")}
        training.means.add("train/student_", step(wrapped, optimizer, on_device))
        after_iteration(training, fabric=fabric, hooks=hooks, rates=rates)
    return training.kept_student()
