"""Variant (b): the package's own steps, each speed-up behind a switch of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from dfad_seg.distill import generator_step, student_step
from dfad_seg.objectives import GeneratorObjective, weighted_discrepancy
from dfad_seg.segmentors import freeze, optimize_for_distillation
from throughput.pairs import build_pair

Step = Callable[[], None]

SPEED_UPS = {
    "channels_last": "without channels_last",
    "fold_batch_norm": "without the teacher's BatchNorm folded into its convolutions",
    "dead_taps": "without leaving out taps of dilated convolutions that only read padding",
    "depthwise_backward": "without gradients of dilated depthwise convolutions by fast operations",
    "fused_optimizers": "without fused SGD and Adam",
    "flush_denormal": "without counting denormal numbers as zero",
}
"""What can be switched off in turn, and the table's words for it."""
COMPILE = "compile"
"""As a variant, nothing is off but the student's network goes through torch.compile."""
BF16 = "bf16"
"""As a variant, nothing is off but all networks run under bf16 autocast, as `precision: bf16-mixed` has them."""
GRAPHS = "graphs"
"""As a variant, nothing is off but the student's forward and backward passes are CUDA graphs."""
ADDED = {COMPILE, BF16, GRAPHS}
COMPILED = {COMPILE: "with torch.compile of the student", f"{BF16}-{COMPILE}": "with both bf16 and compile"}
CHANGES = SPEED_UPS | COMPILED
"""All rows of the table beside those of the plain loop, ours, and ours in bf16."""
GRAPHED = {f"{BF16}-{GRAPHS}": "with both bf16 and CUDA graphs of the student"}
"""Further rows on a GPU, where the launches of small kernels cost the time."""


def our_steps(
    pair: str, batch: int, size: tuple[int, int], device: torch.device, off: frozenset[str] = frozenset()
) -> tuple[Step, Step]:
    """One student step and one generator step with every speed-up but those in `off`, of which "everything" is one.

    `COMPILE`, `BF16` and `GRAPHS` in `off` take nothing off, but add that.
    """
    torch.set_flush_denormal("flush_denormal" not in off and "everything" not in off)
    teacher, student, generator = (network.to(device) for network in build_pair(pair, size))
    on = {name: name not in off and "everything" not in off for name in SPEED_UPS}
    freeze(teacher)
    if on["channels_last"]:
        for network in (teacher, student, generator):
            network.to(memory_format=torch.channels_last)
    rewrites = {name: on[name] for name in ("dead_taps", "depthwise_backward")}
    teacher = optimize_for_distillation(
        teacher, size, trainable=False, fold_batch_norm=on["fold_batch_norm"], **rewrites
    )
    student = optimize_for_distillation(student, size, trainable=True, **rewrites)
    fused = on["fused_optimizers"]
    student_optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, fused=fused)
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3, fused=fused)
    student_loss = weighted_discrepancy({"mae": 1.0})
    objective = GeneratorObjective(weighted_discrepancy({"log_mae": 1.0}))
    rng = torch.Generator(device).manual_seed(0)
    autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=BF16 in off)
    learner = torch.compile(student) if COMPILE in off else student
    if GRAPHS in off:
        example = torch.rand(batch, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=BF16 in off, cache_enabled=False):
            learner = torch.cuda.make_graphed_callables(student, (example,))

    def train_student() -> None:
        with torch.no_grad(), autocast():
            images = generator(generator.sample(batch, size, rng))
        student_step(
            student=learner,
            teacher=teacher,
            images=images,
            optimizer=student_optimizer,
            loss_fn=student_loss,
            autocast=autocast,
        )

    def train_generator() -> None:
        generator_step(
            generator=generator,
            student=student,
            teacher=teacher,
            latents=generator.sample(batch, size, rng),
            optimizer=generator_optimizer,
            objective=objective,
            autocast=autocast,
        )

    return train_student, train_generator
