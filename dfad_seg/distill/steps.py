"""The two moves of the adversarial game. They know no config, loader, logger or device choice."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from dfad_seg.objectives import Discrepancy, FeatureMatching, GeneratorObjective, Interpolation, LogitAdjustment

Backward = Callable[[Tensor], None]
Autocast = Callable[[], AbstractContextManager]


class Step(NamedTuple):
    """What a step found out; all detached, on the device."""

    loss: Tensor
    """A scalar."""
    meters: dict[str, Tensor]
    """Further scalars by name."""
    images: Tensor
    """(N, 3, H, W) that the teacher was shown."""
    logits: Tensor
    """What it said of them, (N, C, H, W), or (N, C) of a classifier."""


def student_step(
    *,
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    optimizer: Optimizer,
    loss_fn: Discrepancy,
    teacher_logits: Tensor | None = None,
    pooling: int = 1,
    interpolation: Interpolation | None = None,
    rng: torch.Generator | None = None,
    features: FeatureMatching | None = None,
    adjustment: LogitAdjustment | None = None,
    clip_norm: float | None = None,
    backward: Backward = torch.Tensor.backward,
    autocast: Autocast = nullcontext,
) -> Step:
    """Move the student towards the teacher on given images (Fang et al. 2019, algorithm 1, the imitation stage).

    Args:
        student: the network to train; may be wrapped for data-parallel training.
        teacher: frozen; it builds no graph.
        images: (N, 3, H, W) in [0, 1]; no gradient flows to where they come from.
        optimizer: over the student's parameters; its gradients are cleared first.
        loss_fn: the discrepancy to minimise.
        teacher_logits: the teacher's of these images, pooled, if they are known already; else the teacher is asked.
        pooling: both networks' logits are averaged over squares of so many pixels first, see `pooled`.
        interpolation: replaces a part of the batch by samples between its images; needs `rng`.
        rng: of the interpolation, on the images' device.
        features: the activation regulariser of this teacher and this (unwrapped) student, added to the loss where
            the teacher is asked. Give the parameters of `features.connectors` to the optimiser, too.
        adjustment: of the student's logits before they are compared with the teacher's; it does not learn here.
        clip_norm: upper bound on the gradient's norm, or None.
        backward: how to run the backward pass (Fabric's, for mixed precision and several devices).
        autocast: context of both forward passes.

    Returns:
        The loss; the meters `agreement` (share of pixels on which the student, without the adjustment, predicts what
        it should), `logit_peak` (the size of its largest logit) and the regulariser's term; the images, and the
        teacher's logits, pooled.
    """
    optimizer.zero_grad(set_to_none=True)
    images = images.detach()
    matching = features if teacher_logits is None else None
    with nullcontext() if matching is None else matching.watch():
        if teacher_logits is None:
            with torch.no_grad(), autocast():
                teacher_logits = pooled(teacher(images), pooling)
        shown, targets, alike = images, teacher_logits, len(images)
        if interpolation is not None:
            assert rng is not None, "an interpolation needs rng"
            shown, targets = interpolation(images, teacher_logits, rng)
            alike = interpolation.left_alone(alike)
        with autocast():
            student_logits = pooled(student(shown), pooling)
    loss = loss_fn(student_logits if adjustment is None else adjustment(student_logits), targets)
    terms: dict[str, Tensor] = {}
    if matching is not None:
        with autocast():
            terms = {"activation_boundary": matching.loss(alike)}
        loss = loss + matching.weight * terms["activation_boundary"]
    _move(optimizer, loss, clip_norm, backward)
    said = student_logits.detach()
    meters = {
        "agreement": (said.argmax(dim=1) == targets.argmax(dim=1)).float().mean(),
        "logit_peak": torch.stack(said.aminmax()).abs().max(),
        **{name: value.detach() for name, value in terms.items()},
    }
    return Step(loss.detach(), meters, images, teacher_logits)


def pooled(logits: Tensor, size: int) -> Tensor:
    """Logits (N, C, H, W) averaged over squares of `size` pixels: (N, C, ⌈H / size⌉, ⌈W / size⌉).

    Many networks predict at a quarter of the image's size and enlarge their logits at the end, so that a loss on all
    pixels costs much and says little more. A classifier's logits (N, C) stay as they are.
    """
    if size == 1 or logits.dim() != 4:
        return logits
    return F.avg_pool2d(logits.float(), size, ceil_mode=True, count_include_pad=False)


@contextmanager
def batch_norm_mode(network: nn.Module, mode: str) -> Iterator[None]:
    """What the BatchNorm layers of a network in training mode do inside the block.

    - `"update"`: normalise by batch statistics and update the running ones, as in ordinary training;
    - `"batch"`: normalise by batch statistics and leave the running ones alone;
    - `"running"`: normalise by the running statistics, as in evaluation.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    try:
        for layer in layers:
            if mode == "batch":
                layer.track_running_stats = False
            elif mode == "running":
                layer.training = False
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
            layer.training = True


@contextmanager
def no_parameter_gradients(network: nn.Module) -> Iterator[None]:
    """Gradients flow through the network to its input, and none to its parameters."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def generator_step(
    *,
    generator: nn.Module,
    student: nn.Module,
    teacher: nn.Module,
    latents: Any,
    optimizer: Optimizer,
    objective: GeneratorObjective,
    student_norm: str = "update",
    clip_norm: float | None = None,
    backward: Backward = torch.Tensor.backward,
    autocast: Autocast = nullcontext,
) -> Step:
    """Move the generator to where student and teacher disagree (algorithm 1, the generation stage).

    Student and teacher are fixed: neither parameters nor their gradients change, whatever was in them before.

    Args:
        generator: the network to train; may be wrapped for data-parallel training.
        student: not wrapped: no gradient of it is wanted.
        teacher: frozen.
        latents: what the generator's `sample` gave.
        optimizer: over the generator's parameters; its gradients are cleared first.
        objective: the generator's loss.
        student_norm: what the student's BatchNorm does here, see `batch_norm_mode`. The paper's code leaves the
            student in training mode, so its running statistics see these images too: `"update"`.
        clip_norm, backward, autocast: as in `student_step`.

    Returns:
        The loss; the objective's terms by name as meters; the images as they were before the step, and the teacher's
        logits.
    """
    optimizer.zero_grad(set_to_none=True)
    with no_parameter_gradients(student), batch_norm_mode(student, student_norm):
        with autocast():
            images = generator(latents)
            with objective.watch_teacher():
                logits = teacher(images)
            student_logits = student(images) if objective.adversarial_weight else None
        loss, terms = objective(images=images, latents=latents, student_logits=student_logits, teacher_logits=logits)
        _move(optimizer, loss, clip_norm, backward)
    meters = {name: value.detach() for name, value in terms.items()}
    return Step(loss.detach(), meters, images.detach(), logits.detach())


def supervised_step(
    *,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    clip_norm: float | None = None,
    backward: Backward = torch.Tensor.backward,
    autocast: Autocast = nullcontext,
) -> Tensor:
    """One step against labels (N, H, W); returns the detached loss."""
    optimizer.zero_grad(set_to_none=True)
    with autocast():
        logits = model(images)
    loss = loss_fn(logits, labels)
    _move(optimizer, loss, clip_norm, backward)
    return loss.detach()


def _move(optimizer: Optimizer, loss: Tensor, clip_norm: float | None, backward: Backward) -> None:
    backward(loss)
    if clip_norm is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
    optimizer.step()
