"""Training on real images: a teacher from labels, and knowledge distillation with data as the control."""

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
from dfad_seg.objectives.discrepancy import focal_loss


def train_with_data(
    network: nn.Module,
    batches_from: Callable[[int], Iterable[dict[str, Any]]],
    training: Supervised | WithData,
    *,
    teacher: nn.Module | None = None,
    losses: Losses | None = None,
    fabric: Fabric | None = None,
    state: dict[str, Any] | None = None,
    hooks: Hooks | None = None,
) -> nn.Module:
    """Train a network on real images, by their labels or by a teacher; returns the network to keep, in eval mode.

    Args:
        network: images to logits; trained in place.
        batches_from: `(iteration) -> batches` from that iteration on, at least as many as are left, of `image`
            (N, 3, H, W) in [0, 1] and, for `Supervised`, `mask` (N, H, W).
        training: numbers; those of `WithData` need a teacher, and take the student's step of `distil`.
        teacher, losses, fabric, state, hooks: as in `distil`, whose errors it raises.
    """
    fabric, hooks = fabric or Fabric(accelerator="auto", devices=1), hooks or Hooks()
    wrapped, optimizer = fabric.setup(network, build_optimizer(training.student_optimizer, network))
    shared: dict[str, Any] = {"optimizer": optimizer, "clip_norm": training.clip_norm}
    shared |= {"backward": fabric.backward, "autocast": fabric.autocast}
    networks, adjustment = {"student": network}, None
    if isinstance(training, WithData):
        assert teacher is not None, "a distillation needs a teacher"
        losses = losses or losses_of(training, teacher=teacher, student=network)
        adjustment = losses.adjustment
        teach = partial(
            student_step,
            student=wrapped,
            teacher=teacher.to(fabric.device),
            loss_fn=losses.student,
            adjustment=adjustment,
            pooling=training.logit_pooling,
        )
    else:
        focal = partial(focal_loss, gamma=training.focal_gamma)
    if adjustment is not None:
        networks["adjustment"] = adjustment.to(fabric.device)
    progress = Progress(training, fabric=fabric, networks=networks, optimizers={"student": optimizer}, hooks=hooks)
    batches = None
    for _ in progress.iterate(state):
        batches = batches or iter(batches_from(progress.iteration))
        batch = next(batches)
        images = batch["image"].to(fabric.device, non_blocking=True)
        if isinstance(training, Supervised):
            labels = batch["mask"].to(fabric.device, non_blocking=True)
            found = supervised_step(model=wrapped, images=images, labels=labels, loss_fn=focal, **shared)
            progress.meters.add("train/student_", {"loss": found})
            continue
        taught = teach(images=images, **shared)
        if adjustment is not None:
            adjustment.observe(taught.logits)
        progress.meters.add("train/student_", {"loss": taught.loss, **taught.meters})
        progress.meters.add_classes("train/student_", taught.logits)
    return progress.kept_student()
