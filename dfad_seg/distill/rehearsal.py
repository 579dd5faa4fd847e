"""A generator that learns before any student does: what its images are needed for must not wait for the game."""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.distill.game import Game
from dfad_seg.distill.optimizers import build_optimizer
from dfad_seg.distill.seeds import iteration_rng
from dfad_seg.distill.steps import batch_norm_mode, generator_step
from dfad_seg.generators import ImageGenerator
from dfad_seg.objectives import GeneratorObjective

WARMUP = 10


def rehearse(
    teacher: nn.Module,
    generator: ImageGenerator,
    objective: GeneratorObjective,
    game: Game,
    iterations: int,
    advance: Callable[[int, float], None],
) -> None:
    """Train a generator by the priors of its objective alone, in place; every process does the same.

    Args:
        teacher: frozen, on the device of the generator.
        game: numbers; the learning rate of its generator rises in the first 10 iterations.
        advance: called after each iteration, with how many there were and the loss.
    """
    if not objective.priors:
        raise InputError(
            "without a student there is nothing that the generator could learn: give it priors, such as"
            " batch_norm_prior, or cut without images (importance: magnitude, compensate: false)."
        )
    device = next(teacher.parameters()).device
    alone = copy.copy(objective)
    alone.adversarial_weight = 0.0
    optimizer = build_optimizer(game.generator_optimizer, generator)
    shares = objective.class_shares
    if shares is not None:
        generator.aim(shares.to(device).shares)
    generator.train()
    for iteration in range(iterations):
        for group in optimizer.param_groups:
            group["lr"] = game.generator_optimizer.options.lr * min(1.0, (iteration + 1) / WARMUP)
        rng = iteration_rng(game.seed, 0, iteration, device, "rehearsal")
        latents = generator.sample(game.batch_size, game.image_size, rng)
        moved = generator_step(
            generator=generator,
            student=teacher,  # which is not asked without an adversarial weight
            teacher=teacher,
            latents=latents,
            optimizer=optimizer,
            objective=alone,
            clip_norm=game.clip_norm,
        )
        labels = moved.logits.argmax(dim=1)
        generator.observe(latents, labels)
        if shares is not None:
            generator.aim(shares.update(labels))
        advance(iteration + 1, float(moved.loss))


def generated(
    generator: ImageGenerator,
    count: int,
    *,
    batch_size: int,
    image_size: tuple[int, int],
    seed: int,
    stream: str = "calibration",
) -> Iterator[Tensor]:
    """Batches (N, 3, H, W) in [0, 1] of a trained generator, `count` images in all; the same every time."""
    rng = iteration_rng(seed, 0, 0, next(generator.parameters()).device, stream)
    for start in range(0, count, batch_size):
        # As in training: the generator normalises by the statistics of its batch.
        with torch.no_grad(), batch_norm_mode(generator, "batch"):
            images = generator(generator.sample(batch_size, image_size, rng))
        yield images[: count - start]
