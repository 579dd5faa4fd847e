"""Training on real images: a teacher from labels, and knowledge distillation with data as the control."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from dfad_seg.distill.game import Supervised, WithData
from dfad_seg.distill.hooks import Hooks
from dfad_seg.distill.losses import Losses, losses_of
from dfad_seg.distill.optimizers import build_optimizer
from dfad_seg.distill.steps import student_step, supervised_step
from dfad_seg.distill.training import Progress
from dfad_seg.distill.world import launched, unwrap
from dfad_seg.objectives import focal_loss

Batches = Callable[[int], Iterable[dict[str, Any]]]
"""`(iteration) -> batches` from that iteration on, at least as many as are left, of `image` (N, 3, H, W) in [0, 1] and
`mask` (N, H, W)."""


def train_supervised(
    network: nn.Module,
    batches_from: Batches,
    training: Supervised,
    *,
    ignore_index: int = 255,
    fabric: Fabric | None = None,
    state: dict[str, Any] | None = None,
    hooks: Hooks | None = None,
) -> nn.Module:
    """Train a network on labelled images; returns the network to keep, in eval mode.

    Args:
        network: images to logits; trained in place.
        batches_from: the images and their labels.
        training: numbers.
        ignore_index: the label that takes no part.
        fabric, state, hooks: as in `distil`, whose errors it raises.
    """
    fabric = launched(fabric)
    wrapped, optimizer = fabric.setup(network, build_optimizer(training.student_optimizer, network))
    loss = partial(focal_loss, gamma=training.focal_gamma, ignore_index=ignore_index)
    progress = Progress(
        training, fabric=fabric, networks={"student": unwrap(wrapped)}, optimizers={"student": optimizer}, hooks=hooks
    )
    batches = None
    for _ in progress.iterate(state):
        batches = batches or iter(batches_from(progress.iteration))
        batch = next(batches)
        found = supervised_step(
            model=wrapped,
            images=batch["image"].to(fabric.device, non_blocking=True),
            labels=batch["mask"].to(fabric.device, non_blocking=True),
            optimizer=optimizer,
            loss_fn=loss,
            clip_norm=training.clip_norm,
            backward=fabric.backward,
            autocast=fabric.autocast,
        )
        progress.meters.add("train/student_", {"loss": found})
    return progress.kept_student()


def distil_with_data(
    teacher: nn.Module,
    student: nn.Module,
    batches_from: Batches,
    training: WithData,
    *,
    losses: Losses | None = None,
    fabric: Fabric | None = None,
    state: dict[str, Any] | None = None,
    hooks: Hooks | None = None,
) -> nn.Module:
    """Knowledge distillation on real images: the same student step as in `distil`, whose arguments it has.

    Args:
        batches_from: the images; labels are not used.
        training: numbers.
    """
    losses = losses or losses_of(training, teacher=teacher, student=student)
    fabric, adjustment = launched(fabric), losses.adjustment
    teacher = teacher.to(fabric.device)
    wrapped, optimizer = fabric.setup(student, build_optimizer(training.student_optimizer, student))
    networks = {"student": unwrap(wrapped)}
    if adjustment is not None:
        networks["adjustment"] = adjustment.to(fabric.device)
    progress = Progress(training, fabric=fabric, networks=networks, optimizers={"student": optimizer}, hooks=hooks)
    batches = None
    for _ in progress.iterate(state):
        batches = batches or iter(batches_from(progress.iteration))
        taught = student_step(
            student=wrapped,
            teacher=teacher,
            images=next(batches)["image"].to(fabric.device, non_blocking=True),
            optimizer=optimizer,
            loss_fn=losses.student,
            adjustment=adjustment,
            pooling=training.logit_pooling,
            clip_norm=training.clip_norm,
            backward=fabric.backward,
            autocast=fabric.autocast,
        )
        if adjustment is not None:
            adjustment.observe(taught.logits)
        progress.meters.add("train/student_", {"loss": taught.loss, **taught.meters})
        progress.meters.add_classes("train/student_", taught.logits)
    return progress.kept_student()
