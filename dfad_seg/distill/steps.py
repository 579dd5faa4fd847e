"""The two moves of the adversarial game. They know no config, loader, logger or device choice."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dfad_seg.distill.norm import batch_norm_mode, no_parameter_gradients
from dfad_seg.objectives import Discrepancy, FeatureMatching, GeneratorObjective, Interpolation, Lesson

Backward = Callable[[Tensor], None]
Autocast = Callable[[], AbstractContextManager]


def student_step(
    *,
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    optimizer: Optimizer,
    loss_fn: Discrepancy,
    teacher_logits: Tensor | None = None,
    interpolation: Interpolation | None = None,
    rng: torch.Generator | None = None,
    features: FeatureMatching | None = None,
    clip_norm: float | None = None,
    backward: Backward = torch.Tensor.backward,
    autocast: Autocast = nullcontext,
) -> dict[str, Tensor]:
    """Move the student towards the teacher on given images (Fang et al. 2019, algorithm 1, the imitation stage).

    Args:
        student: the network to train; may be wrapped for data-parallel training.
        teacher: frozen; it builds no graph.
        images: (N, 3, H, W) in [0, 1]; no gradient flows to where they come from.
        optimizer: over the student's parameters; its gradients are cleared first.
        loss_fn: the discrepancy to minimise.
        teacher_logits: the teacher's answer to these images, if it is known already; else the teacher is asked.
        interpolation: replaces a part of the batch by samples between its images; needs `rng`.
        rng: of the interpolation, on the images' device.
        features: activation regularisers of this teacher and this (unwrapped) student, added to the loss where the
            teacher is asked. Give the parameters of `features.connectors` to the optimiser, too.
        clip_norm: upper bound on the gradient's norm, or None.
        backward: how to run the backward pass (Fabric's, for mixed precision and several devices).
        autocast: context of both forward passes.

    Returns:
        Detached tensors on the device: the scalars `loss`, `agreement` (share of pixels on which the student answers
        what it should) and the regularisers' terms by name; `classes`, (C,) share of each class among the teacher's
        answers; `teacher_logits`, (N, C, H, W), or (N, C) of a classifier, and `teacher_images`, to which they belong.
    """
    images = images.detach()
    optimizer.zero_grad(set_to_none=True)
    # An answer that is known is of no use where the teacher is to answer the images in between.
    known = None if interpolation is not None and interpolation.labels == "teacher" else teacher_logits
    if known is not None:
        features = None

    def answer(shown: Tensor) -> Tensor:
        return teacher(shown) if known is None else known

    with nullcontext() if features is None else features.watch():
        with torch.no_grad(), autocast():
            if interpolation is None:
                lesson = Lesson.of(images, answer(images))
            else:
                assert rng is not None, "an interpolation needs rng"
                lesson = interpolation(images, answer, rng)
        with autocast():
            student_logits = student(lesson.images)
    loss = loss_fn(student_logits, lesson.targets)
    terms: dict[str, Tensor] = {}
    if features is not None:
        with autocast():
            terms = features.terms(lesson.matching)
        loss = loss + features.weighted(terms)
    backward(loss)
    _clip(optimizer, clip_norm)
    optimizer.step()
    with torch.no_grad():
        agreement = (student_logits.argmax(dim=1) == lesson.targets.argmax(dim=1)).float().mean()
        # Not bincount, which makes a GPU's queue wait.
        labels = lesson.teacher_logits.argmax(dim=1).flatten()
        ones = torch.ones_like(labels, dtype=torch.float32)
        counts = torch.zeros(lesson.targets.shape[1], device=labels.device).scatter_add_(0, labels, ones)
        classes = counts / labels.numel()
    return {
        "loss": loss.detach(),
        "agreement": agreement,
        "classes": classes,
        "teacher_logits": lesson.teacher_logits,
        "teacher_images": lesson.teacher_images,
        **{name: value.detach() for name, value in terms.items()},
    }


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
) -> dict[str, Tensor]:
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
        The objective's terms and their `loss`, detached; and `teacher_labels`, (N, H, W), its answer to these images.
    """
    optimizer.zero_grad(set_to_none=True)
    with no_parameter_gradients(student), batch_norm_mode(student, student_norm):
        with autocast():
            images = generator(latents)
            with objective.watch_teacher():
                teacher_logits = teacher(images)
            student_logits = student(images)
        terms = objective(images=images, latents=latents, student_logits=student_logits, teacher_logits=teacher_logits)
        backward(terms["loss"])
    _clip(optimizer, clip_norm)
    optimizer.step()
    result = {name: value.detach() for name, value in terms.items()}
    return result | {"teacher_labels": teacher_logits.detach().argmax(dim=1)}


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
) -> dict[str, Tensor]:
    """One step against labels (N, H, W); returns the detached `loss`."""
    optimizer.zero_grad(set_to_none=True)
    with autocast():
        logits = model(images)
    loss = loss_fn(logits, labels)
    backward(loss)
    _clip(optimizer, clip_norm)
    optimizer.step()
    return {"loss": loss.detach()}


def _clip(optimizer: Optimizer, clip_norm: float | None) -> None:
    if clip_norm is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
