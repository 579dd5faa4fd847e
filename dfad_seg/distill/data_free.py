"""The data-free loop. It receives networks and an `evaluate` callable, never a loader: no real image can reach it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from dfad_seg.distill.health import Health
from dfad_seg.distill.hooks import Hooks
from dfad_seg.distill.image_sizes import ImageSizes
from dfad_seg.distill.memory import ReplayMemory
from dfad_seg.distill.norm import batch_norm_mode
from dfad_seg.distill.schedules import Schedule
from dfad_seg.distill.seeds import iteration_rng
from dfad_seg.distill.steps import generator_step, pooled, student_step
from dfad_seg.distill.training import Training, after_iteration, begin, evaluate_pending
from dfad_seg.distill.world import unwrap
from dfad_seg.generators import ImageGenerator
from dfad_seg.objectives import Discrepancy, FeatureMatching, GeneratorObjective, Interpolation, LogitAdjustment

PREVIEW_IMAGES = 8


@dataclass
class GameSettings:
    """The numbers of the game; the defaults are DFAD's for CamVid (Fang et al. 2019)."""

    iterations: int = 15_000
    """Each is `student_steps` student steps and one generator step."""
    warmup: int = 0
    """First iterations, in which the schedule's factor rises to 1."""
    student_steps: int = 5
    """k student steps per generator step, each on fresh images."""
    batch_size: int = 64
    """Images per step and rank."""
    accumulate: int = 1
    """Parts into which each batch is split, one after the other, to save memory."""
    image_size: tuple[int, int] = (128, 128)
    """(H, W) of the generated images."""
    progressive_sizes: tuple[tuple[int, int], ...] = ()
    """Sizes to train on instead, one after the other, with about as many pixels per batch; see `ImageSizes`."""
    simultaneous: bool = False
    """The first student step of an iteration takes the generator step's images and the answers that these got, instead
    of fresh ones: one pass of generator and teacher less. No features are matched on them."""
    student_norm: str = "update"
    """The student's BatchNorm in the generator's step: update, batch or running."""
    clip_norm: float | None = None
    """Bound on the gradient norm of either player."""
    ema_decay: float | None = None
    """Keep a moving average of the student's weights with this decay per iteration, and evaluate and keep that."""
    replay_size: int = 0
    """Generated images to remember (per image size); 0: none."""
    replay_steps: int = 0
    """Student steps per iteration on remembered images, beside those on fresh ones."""
    final_replay_steps: int | None = None
    """Their number grows to this as the schedule's factor falls from 1 to 0: later images are worth more. None: it
    stays."""
    answer_pooling: int = 1
    """Side of the squares of pixels over which logits are averaged before the student's loss, and in the memory."""
    replay_answers: str = "anew"
    """`anew`: the teacher answers remembered images again; `kept`: its logits were stored."""
    seed: int = 0

    def replay_steps_at(self, iteration: int, schedule: Schedule) -> int:
        """The student's steps on remembered images in an iteration."""
        if self.final_replay_steps is None:
            return self.replay_steps
        # How far the learning rates have fallen: the small factors of the warm-up do not count.
        factor = schedule(max(iteration, self.warmup - 1))
        return round(self.replay_steps + (self.final_replay_steps - self.replay_steps) * (1 - min(1.0, factor)))


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
    interpolation: Interpolation | None = None,
    features: FeatureMatching | None = None,
    adjustment: LogitAdjustment | None = None,
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
        student_optimizer: over the student's parameters.
        generator_optimizer: over the generator's.
        student_loss: the discrepancy that the student minimises.
        objective: the generator's loss; None with `generator_optimizer=None`.
        schedule: factor on both players' learning rates, by iteration.
        settings: numbers.
        interpolation: of the student's step, see `student_step`.
        features: likewise. The parameters of `features.connectors` belong to `student_optimizer`, too.
        adjustment: of the student's logits in its loss; it learns from the teacher's on new images. Give it to the
            objective, too.
        state: what `hooks.save` was given, to continue from.
        hooks: logging, evaluation, saving.

    Raises:
        Interrupted: `hooks.stop_requested` said so; the state has been saved.
        Diverged: a loss, a weight or a statistic is not finite.
        InputError: `state` is not of this game.
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
    memory = ReplayMemory(settings.replay_size, keep_answers=settings.replay_answers == "kept")
    networks: dict[str, nn.Module] = {"student": student, "generator": generator}
    if features is not None and any(True for _ in features.connectors.parameters()):
        features.connectors = fabric.setup_module(features.connectors)
        networks["connectors"] = unwrap(features.connectors)
    if objective is not None and objective.class_shares is not None:
        networks["class_shares"] = objective.class_shares.to(fabric.device)
    if adjustment is not None:
        networks["adjustment"] = adjustment.to(fabric.device)
    training = Training(
        networks=networks,
        optimizers={"student": student_optimizer}
        | ({} if generator_optimizer is None else {"generator": generator_optimizer}),
        schedule=schedule,
        iterations=settings.iterations,
        ema_decay=settings.ema_decay,
        memory=memory,
        health=Health(trained_generator=generator_optimizer is not None),
    )
    begin(training, state)
    student.train()
    generator.train()
    sizes = ImageSizes(settings.image_size, settings.batch_size, settings.progressive_sizes, settings.iterations)

    def generate(count: int, size: tuple[int, int], rng: torch.Generator) -> Tensor:
        latents = generator.sample(count, size, rng)
        with torch.no_grad(), fabric.autocast():
            images = generator(latents)
        assert isinstance(images, Tensor)
        return images

    def preview(kept: nn.Module) -> None:
        if fabric.global_rank == 0:
            # A fixed stream: the same latents every time, so that pictures over time can be compared.
            rng = iteration_rng(settings.seed, 0, 0, fabric.device, "preview")
            with batch_norm_mode(generator, "batch"):
                images = generate(PREVIEW_IMAGES, settings.image_size, rng)
            with torch.no_grad():
                labels = [network(images).argmax(dim=1).cpu() for network in (teacher, kept)]
            hooks.preview(training.iteration, images.cpu(), labels[0], labels[1])

    def teach(images: Tensor, rng: torch.Generator, answers: Tensor | None = None) -> dict[str, Tensor]:
        return student_step(
            student=student_wrapped,
            teacher=teacher,
            images=images,
            teacher_logits=answers,
            optimizer=student_optimizer,
            loss_fn=student_loss,
            accumulate=settings.accumulate,
            pooling=settings.answer_pooling,
            interpolation=interpolation,
            rng=rng,
            features=features,
            adjustment=adjustment,
            clip_norm=settings.clip_norm,
            backward=fabric.backward,
            autocast=fabric.autocast,
        )

    def move_generator(batch: int, size: tuple[int, int], rng: torch.Generator) -> tuple[Tensor, Tensor] | None:
        """One step of the generator; its images and the teacher's pooled answers to them, if there was one."""
        if generator_optimizer is None or objective is None:
            return None
        latents = generator.sample(batch, size, rng)
        result = generator_step(
            generator=generator_wrapped,
            student=student,
            teacher=teacher,
            latents=latents,
            optimizer=generator_optimizer,
            objective=objective,
            student_norm=settings.student_norm,
            accumulate=settings.accumulate,
            clip_norm=settings.clip_norm,
            backward=fabric.backward,
            autocast=fabric.autocast,
        )
        images, answers = result.pop("images"), result.pop("teacher_logits")
        labels = answers.argmax(dim=1)
        generator.observe(latents, labels)
        if objective.class_shares is not None:
            generator.aim(objective.class_shares.update(labels))
        training.means.add("train/generator_", result)
        return images, pooled(answers, settings.answer_pooling)

    evaluate_pending(training, hooks=hooks)
    while training.iteration < settings.iterations:
        rates = training.set_rates()
        rng = iteration_rng(settings.seed, fabric.global_rank, training.iteration, fabric.device)
        size, batch = sizes.at(training.iteration)
        memory.forget_others(size)  # which will not come again

        shared = move_generator(batch, size, rng) if settings.simultaneous else None
        for _ in range(settings.student_steps):
            generated, known = (generate(batch, size, rng), None) if shared is None else shared
            shared = None
            result = teach(generated, rng, known)
            answered, answers = result.pop("teacher_images"), result.pop("teacher_logits")
            if adjustment is not None and (known is not None or not settings.simultaneous):
                adjustment.observe(answers)
            if settings.replay_size:
                memory.add(answered if memory.keep_answers else generated, answers, rng)
            training.means.add("train/student_", result)
            training.means.add("train/image_", {"mean": generated.mean(), "sd": generated.std()})

        if memory.count(size) >= batch:
            for _ in range(settings.replay_steps_at(training.iteration, schedule)):
                images, kept_answers = memory.sample(batch, size, rng)
                result = teach(images, rng, kept_answers)
                training.means.add("train/replay_", {name: result[name] for name in ("loss", "agreement")})

        if not settings.simultaneous:
            move_generator(batch, size, rng)
        after_iteration(training, fabric=fabric, hooks=hooks, rates=rates, preview=preview)
    return training.kept_student()
