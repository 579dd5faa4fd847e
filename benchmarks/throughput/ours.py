"""Variant (b): the package's own steps, each speed-up behind a switch of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dfad_seg.distill import generator_step, student_step
from dfad_seg.objectives import GeneratorObjective, weighted_discrepancy
from dfad_seg.segmentors import freeze
from throughput.pairs import build_pair

Step = Callable[[], None]

SPEED_UPS = {
    "channels_last": "images and weights with the channels last",
    "flush_denormal": "denormal numbers count as zero",
}
"""What can be switched off in turn, and what it is."""


def our_steps(
    pair: str, batch: int, size: tuple[int, int], device: torch.device, off: frozenset[str] = frozenset()
) -> tuple[Step, Step]:
    """One student step and one generator step with every speed-up but those in `off`."""
    torch.set_flush_denormal("flush_denormal" not in off)
    teacher, student, generator = (network.to(device) for network in build_pair(pair, size))
    freeze(teacher)
    if "channels_last" not in off:
        for network in (teacher, student, generator):
            network.to(memory_format=torch.channels_last)
    student_optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)
    student_loss = weighted_discrepancy({"mae": 1.0})
    objective = GeneratorObjective(weighted_discrepancy({"log_mae": 1.0}))
    rng = torch.Generator(device).manual_seed(0)

    def train_student() -> None:
        with torch.no_grad():
            images = generator(generator.sample(batch, size, rng))
        result = student_step(
            student=student, teacher=teacher, images=images, optimizer=student_optimizer, loss_fn=student_loss
        )
        generator.observe(result["teacher_labels"])

    def train_generator() -> None:
        generator_step(
            generator=generator,
            student=student,
            teacher=teacher,
            latents=generator.sample(batch, size, rng),
            optimizer=generator_optimizer,
            objective=objective,
        )

    return train_student, train_generator
