"""The data-free game. It receives networks and an `evaluate` callable, never a loader: no real image can reach it,
unless the caller gives `transfer`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dfad_seg.common.labels import labels_of
from dfad_seg.distill.game import DataFree, Game
from dfad_seg.distill.hooks import Hooks
from dfad_seg.distill.losses import Losses, losses_of
from dfad_seg.distill.memory import ReplayMemory
from dfad_seg.distill.optimizers import build_optimizer
from dfad_seg.distill.seeds import iteration_rng
from dfad_seg.distill.steps import Step, batch_norm_mode, generator_step, pooled, student_step
from dfad_seg.distill.training import Progress
from dfad_seg.generators import ImageGenerator

PREVIEW_IMAGES = 8


def distil(
    teacher: nn.Module,
    student: nn.Module,
    generator: ImageGenerator,
    game: DataFree,
    *,
    losses: Losses | None = None,
    transfer: Callable[[int, tuple[int, int], torch.Generator], Tensor] | None = None,
    fabric: Fabric | None = None,
    state: dict[str, Any] | None = None,
    hooks: Hooks | None = None,
) -> nn.Module:
    """Play the game of Fang et al. 2019 (algorithm 1) and return the student to keep, on the device, in eval mode.

    Args:
        teacher: images (N, 3, H, W) in [0, 1] to logits; frozen (see `segmentors.freeze`).
        student: likewise; trained in place.
        generator: trained in place, if `game` is a `Game`; with the numbers of a mere `DataFree` it stays as it is.
        game: numbers.
        losses: default: what the numbers say, see `losses_of`. Needed where the given teacher is a faster copy of that
            into which some of them look.
        transfer: (count, (H, W), rng) → further images (N, 3, H, W) for the student, which no generator made: the game
            is not data-free with it. None: there are none.
        fabric: device, precision and processes; default: one process on the best device.
        state: what `hooks.save` was given, to continue from.
        hooks: logging, evaluation, saving.

    Raises:
        Interrupted: `hooks.stop_requested` said so; the state has been saved.
        Diverged: a loss, a weight or a statistic is not finite.
        InputError: the networks do not have what the losses need, or `state` is not of this game.
    """
    losses = losses or losses_of(game, teacher=teacher, student=student, generator=generator)
    objective, adjustment, features = losses.objective, losses.adjustment, losses.features
    fabric, hooks = fabric or Fabric(accelerator="auto", devices=1), hooks or Hooks()
    teacher = teacher.to(fabric.device)
    # The connectors of the regularisers learn with the student, though they are no part of it. The wrapped networks are
    # for the steps that train them; everything else uses the plain ones.
    learning = student if features is None else nn.ModuleList([student, features.connectors])
    wrapped, student_optimizer = fabric.setup(student, build_optimizer(game.student_optimizer, learning))
    networks: dict[str, nn.Module] = {"student": student, "generator": generator}
    optimizers = {"student": student_optimizer}
    if features is not None:
        networks["connectors"] = features.connectors
        features.connectors = fabric.setup_module(features.connectors)
    if adjustment is not None:
        networks["adjustment"] = adjustment.to(fabric.device)
    generator = generator.to(fabric.device).train()
    move, simultaneous = None, False
    shared: dict[str, Any] = {"clip_norm": game.clip_norm, "backward": fabric.backward, "autocast": fabric.autocast}
    shares = None if objective is None else objective.class_shares
    if shares is not None:
        networks["class_shares"] = shares.to(fabric.device)
        generator.aim(shares.shares)
    if objective is not None:
        assert isinstance(game, Game), "a generator is trained by the numbers of a Game"
        trained, optimizers["generator"] = fabric.setup(generator, build_optimizer(game.generator_optimizer, generator))
        simultaneous = game.simultaneous
        move = partial(
            generator_step,
            generator=trained,
            student=student,
            teacher=teacher,
            optimizer=optimizers["generator"],
            objective=objective,
            student_norm=game.student_norm,
            **shared,
        )
    teach = partial(
        student_step,
        student=wrapped,
        teacher=teacher,
        optimizer=student_optimizer,
        loss_fn=losses.student,
        pooling=game.logit_pooling,
        interpolation=game.interpolation,
        features=features,
        adjustment=adjustment,
        **shared,
    )
    replay, warmup = game.replay, game.schedule.options.warmup
    memory = None if replay is None else ReplayMemory(replay.size, keep_logits=replay.logits == "kept")
    progress = Progress(game, fabric=fabric, networks=networks, optimizers=optimizers, memory=memory, hooks=hooks)
    meters = progress.meters

    def generate(count: int, size: tuple[int, int], rng: torch.Generator) -> Tensor:
        latents = generator.sample(count, size, rng)
        with torch.no_grad(), fabric.autocast():
            return generator(latents)

    def preview(kept: nn.Module) -> None:
        if fabric.global_rank == 0:
            # A fixed stream: the same latents every time, so that pictures over time can be compared.
            rng = iteration_rng(game.seed, 0, 0, fabric.device, "preview")
            with batch_norm_mode(generator, "batch"):
                images = generate(PREVIEW_IMAGES, game.image_size, rng)
            names = [f"generated image {place}" for place in range(len(images))]
            with torch.no_grad():
                labels = [labels_of(network(images), names).cpu() for network in (teacher, kept)]
            hooks.preview(progress.iteration, images.cpu(), labels[0], labels[1])

    def move_generator(count: int, size: tuple[int, int], rng: torch.Generator) -> Step | None:
        if move is None:
            return None
        latents = generator.sample(count, size, rng)
        moved = move(latents=latents)
        labels = moved.logits.argmax(dim=1)
        generator.observe(latents, labels)
        if shares is not None:
            generator.aim(shares.update(labels))
        meters.add("train/generator_", {"loss": moved.loss, **moved.meters})
        return moved

    for rng in progress.iterate(state, preview):
        size = game.size_at(progress.iteration)
        batch = game.batch_of(size)
        moved = move_generator(batch, size, rng) if simultaneous else None
        for turn in range(game.student_steps):
            if turn == 0 and moved is not None:
                images, known = moved.images, pooled(moved.logits, game.logit_pooling)
            else:
                images, known = generate(batch, size, rng), None
            taught = teach(images=images, teacher_logits=known, rng=rng)
            if adjustment is not None and (known is not None or not simultaneous):
                adjustment.observe(taught.logits)
            if memory is not None:
                memory.add(taught.images if memory.keep_logits else images, taught.logits, rng)
            meters.add("train/student_", {"loss": taught.loss, **taught.meters})
            meters.add_classes("train/student_", taught.logits)
        turns = 0
        if memory is not None and replay is not None:
            turns = replay.steps_at(progress.iteration, progress.schedule, warmup) if len(memory) >= batch else 0
            for _ in range(turns):
                images, known = memory.sample(batch, rng)
                taught = teach(images=images, teacher_logits=known, rng=rng)
                meters.add("train/replay_", {"loss": taught.loss, "agreement": taught.meters["agreement"]})
        for _ in range(0 if transfer is None else max(1, turns)):
            assert transfer is not None
            taught = teach(images=transfer(batch, size, rng).to(fabric.device), teacher_logits=None, rng=rng)
            meters.add("train/transfer_", {"loss": taught.loss, "agreement": taught.meters["agreement"]})
        if not simultaneous:
            move_generator(batch, size, rng)
    return progress.kept_student()
