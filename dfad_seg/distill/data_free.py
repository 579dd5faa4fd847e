"""The data-free loop. It receives networks and an `evaluate` callable, never a loader: no real image can reach it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from dfad_seg.distill.hooks import Hooks
from dfad_seg.distill.norm import batch_norm_mode, recalibrate_batch_norm
from dfad_seg.distill.schedules import Schedule
from dfad_seg.distill.seeds import iteration_rng
from dfad_seg.distill.steps import generator_step, student_step
from dfad_seg.distill.training import Training, after_iteration, evaluate_pending
from dfad_seg.distill.world import unwrap
from dfad_seg.generators import ImageGenerator
from dfad_seg.objectives import Discrepancy, GeneratorObjective

PREVIEW_IMAGES = 8
Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass
class GameSettings:
    """The numbers of the game; the defaults are DFAD's for CamVid (Fang et al. 2019)."""

    iterations: int = 15_000
    """Each is `student_steps` student steps and one generator step."""
    student_steps: int = 5
    """k student steps per generator step, each on fresh images."""
    batch_size: int = 64
    """Images per step and rank."""
    image_size: tuple[int, int] = (128, 128)
    """(H, W) of the generated images."""
    student_norm: str = "update"
    """The student's BatchNorm in the generator's step: update, batch or running."""
    clip_norm: float | None = None
    """Bound on the gradient norm of either player."""
    ema_decay: float | None = None
    """Keep a moving average of the student's weights with this decay per iteration, and evaluate and keep that."""
    recalibrate_batches: int = 0
    """Generated batches over which the kept student's BatchNorm statistics are recomputed; 0 keeps them."""
    seed: int = 0


def distil_data_free(
    *,
    fabric: Fabric,
    teacher: nn.Module,
    student: nn.Module,
    generator: ImageGenerator,
    student_optimizer: Optimizer,
    generator_optimizer: Optimizer | None,
    student_loss: Discrepancy,
    objective: GeneratorObjective | None,
    schedule: Schedule,
    settings: GameSettings,
    augment: Augment | None = None,
    state: dict[str, Any] | None = None,
    hooks: Hooks | None = None,
) -> nn.Module:
    """Play the game of Fang et al. 2019 (algorithm 1) and return the student to keep, on the device, in eval mode.

    Args:
        fabric: device, precision and processes; already launched.
        teacher: frozen (see `segmentors.freeze`).
        student: trained in place.
        generator: `sample` and `forward` as in `generators`. Trained in place unless `generator_optimizer` is
            None, as for the random-noise control.
        student_optimizer, generator_optimizer: over these networks' parameters.
        student_loss: the discrepancy that the student minimises.
        objective: the generator's loss; None with `generator_optimizer=None`.
        schedule: factor on both players' learning rates, by iteration.
        settings: numbers.
        augment: changes generated images before the student's step: `(images, rng) -> images`.
        state: what `hooks.save` was given, to continue from.
        hooks: logging, evaluation, saving.

    Raises:
        Interrupted: `hooks.stop_requested` said so; the state has been saved.
    """
    hooks = hooks or Hooks()
    teacher = teacher.to(fabric.device)
    # The wrapped networks are for the steps that train them; everything else uses the plain ones.
    student_wrapped, student_optimizer = fabric.setup(student, student_optimizer)
    if generator_optimizer is None:
        generator_wrapped = generator.to(fabric.device)
    else:
        generator_wrapped, generator_optimizer = fabric.setup(generator, generator_optimizer)
    student = unwrap(student_wrapped)  # the generator is trained in place, so `generator` stays the plain one
    training = Training(
        networks={"student": student, "generator": generator},
        optimizers={"student": student_optimizer}
        | ({} if generator_optimizer is None else {"generator": generator_optimizer}),
        schedule=schedule,
        iterations=settings.iterations,
        ema_decay=settings.ema_decay,
    )
    if state is not None:
        training.load_state_dict(state)
    student.train()
    generator.train()

    def kept_student() -> nn.Module:
        kept = training.kept_student()
        if settings.recalibrate_batches:
            recalibrate_batch_norm(kept, _generated(generator, settings, fabric, training.iteration))
        return kept

    def preview(kept: nn.Module) -> None:
        if fabric.global_rank == 0:
            hooks.preview(training.iteration, *_preview(kept, teacher, generator, settings, fabric))

    evaluate_pending(training, hooks=hooks, kept_student=kept_student)
    while training.iteration < settings.iterations:
        rates = training.set_rates()
        rng = iteration_rng(settings.seed, fabric.global_rank, training.iteration, fabric.device)

        for _ in range(settings.student_steps):
            latents = generator.sample(settings.batch_size, settings.image_size, rng)
            with torch.no_grad(), fabric.autocast():
                images = generator(latents)
            if augment is not None:
                images = augment(images, rng)
            result = student_step(
                student=student_wrapped,
                teacher=teacher,
                images=images,
                optimizer=student_optimizer,
                loss_fn=student_loss,
                clip_norm=settings.clip_norm,
                backward=fabric.backward,
                autocast=fabric.autocast,
            )
            generator.observe(result.pop("teacher_labels"))
            training.means.add("train/student_", result)

        if generator_optimizer is not None and objective is not None:
            result = generator_step(
                generator=generator_wrapped,
                student=student,
                teacher=teacher,
                latents=generator.sample(settings.batch_size, settings.image_size, rng),
                optimizer=generator_optimizer,
                objective=objective,
                student_norm=settings.student_norm,
                clip_norm=settings.clip_norm,
                backward=fabric.backward,
                autocast=fabric.autocast,
            )
            training.means.add("train/generator_", result)

        after_iteration(training, fabric=fabric, hooks=hooks, rates=rates, kept_student=kept_student, preview=preview)
    return kept_student()


@torch.no_grad()
def _generated(generator: ImageGenerator, settings: GameSettings, fabric: Fabric, iteration: int) -> Iterator[Tensor]:
    # Rank 0's stream everywhere, so that every rank keeps the same student.
    rng = iteration_rng(settings.seed, 0, iteration, fabric.device, "recalibration")
    with batch_norm_mode(generator, "batch"):
        for _ in range(settings.recalibrate_batches):
            latents = generator.sample(settings.batch_size, settings.image_size, rng)
            with fabric.autocast():
                images = generator(latents)
            yield images


@torch.no_grad()
def _preview(
    student: nn.Module, teacher: nn.Module, generator: ImageGenerator, settings: GameSettings, fabric: Fabric
) -> tuple[Tensor, Tensor, Tensor]:
    """Generated images (N, 3, H, W) with the teacher's and the student's labels (N, H, W), on the CPU."""
    # A fixed stream: the same latents every time, so that pictures over time can be compared.
    rng = iteration_rng(settings.seed, 0, 0, fabric.device, "preview")
    with batch_norm_mode(generator, "batch"):
        images = generator(generator.sample(PREVIEW_IMAGES, settings.image_size, rng))
    labels = [network(images).argmax(dim=1).cpu() for network in (teacher, student)]
    return images.cpu(), labels[0], labels[1]
