"""A small game of toys."""

import toys

from dfad_seg.distill import Game, Hooks, distil
from dfad_seg.generators import build_generator

PLAYED = {
    "iterations": 5,
    "student_steps": 2,
    "batch_size": 4,
    "image_size": toys.SIZE,
    "student_optimizer": {"type": "sgd", "lr": 0.05, "momentum": 0.9},
    "generator_optimizer": {"type": "adam", "lr": 1e-3},
    "schedule": {"type": "step", "every": 3},
    "seed": 7,
}


def play(
    *, state=None, hooks=None, dropout=0.2, teacher=None, student=None, layouts=None, losses=None, channels=3, **changes
):
    """(kept student, generator, records); `layouts` are options of a layout generator, `changes` those of the game."""
    student = toys.segmentor(0, dropout=dropout, channels=channels) if student is None else student
    teacher = toys.teacher(channels=channels) if teacher is None else teacher
    generator = toys.generator(channels=channels)
    if layouts is not None:
        layouts = {"width": 2, "scales": 1, "recalled": 0.5, "class_frequencies": "moments"} | layouts
        generator = build_generator("layout", num_classes=toys.CLASSES, image_size=toys.SIZE, **layouts)
    game = Game.of(**PLAYED | changes)
    records, hooks = [], hooks or Hooks(log_every=1)
    hooks.log = lambda step, scalars: records.append({"step": step, **scalars})
    losses = None if losses is None else losses(game, teacher, student, generator)
    kept = distil(teacher, student, generator, game, losses=losses, fabric=toys.fabric(), state=state, hooks=hooks)
    return kept, generator, records
