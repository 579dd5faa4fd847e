"""How good a student is where no image has a label: its agreement with the teacher on images nobody trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from dfad_seg.common.labels import labels_of
from dfad_seg.common.modules import evaluating
from dfad_seg.distill import batch_norm_mode
from dfad_seg.distill.seeds import iteration_rng
from dfad_seg.evaluation.inference import as_floats
from dfad_seg.generators import ImageGenerator
from dfad_seg.runs.records import Estimate, Score

IMAGES, BATCH = 64, 8
MOST_OF_ONE = 0.9
"""Share of the generated pixels that one class may have."""
MARGIN = 0.05
"""Of agreement, beyond what was measured."""
# What agreement on generated images has meant: students as they were cut, of checkpoints, and with noise on their
# weights, scored with labels and without by `python benchmarks/quality.py RUN ...` on finished runs. Pairs of (mIoU of
# agreement with the teacher, share of the teacher's mIoU on labelled images).
POINTS = (
    *((0.017, 0.046), (0.019, 0.065), (0.037, 0.054), (0.071, 0.217), (0.082, 0.373), (0.109, 0.648), (0.225, 0.995)),
    *((0.597, 0.989), (0.604, 0.974), (0.612, 0.972), (0.639, 1.054), (0.647, 1.046), (0.654, 1.048)),
)
"""CamVid's teacher, a DeepLabV3+ on a MobileNetV2; students cut to 33 % and 67 % of its multiply-accumulates."""
HELD_OUT = ((0.643, 0.895), (0.653, 0.896), (0.673, 0.901))
"""The street scenes' teacher, and students of another architecture that began with random weights."""


def held_out_images(
    generator: ImageGenerator, size: tuple[int, int], *, seed: int, device: torch.device | str
) -> Iterator[dict[str, Any]]:
    """Batches of 64 generated images of `size` (H, W), of a seed and layouts that no training step had."""
    rng = iteration_rng(seed, 0, 0, device, "held_out")
    for start in range(0, IMAGES, BATCH):
        # As in training: the generator normalises by the statistics of its batch.
        with torch.no_grad(), batch_norm_mode(generator, "batch"):
            images = generator(generator.sample(BATCH, size, rng))
        yield {"image": images, "name": [f"generated image {start + place}" for place in range(BATCH)]}


def labelled_by(teacher: nn.Module, batches: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Batches to evaluate, whose truth is what the teacher predicts."""
    device = next(teacher.parameters()).device
    for batch in batches:
        with torch.no_grad(), evaluating(teacher):
            truth = labels_of(teacher(as_floats(batch["image"].to(device))), batch["name"])
        yield {**batch, "mask": truth}


def estimate(score: Score, *, cut: bool) -> Estimate:
    """What share of the teacher's mIoU the agreement on generated images says that a student keeps, 1 at most.

    It rises with the agreement as it did for students that were cut out of one teacher; low and high are 1.64 times the
    error that this has on the students of another.

    Args:
        cut: whether the student was cut out of its teacher. Of others it is known that they can agree on the images
            which they learnt from, and fail on real ones: none is given.
    """
    seen = [pixels / sum(score.support) for pixels in score.support]
    if max(seen) > MOST_OF_ONE or sum(share > 0 for share in seen) <= len(seen) / 2:
        return Estimate(reason="the teacher sees too few classes in the generated images")
    if not cut:
        return Estimate(reason="only students that were cut out of their teacher have been calibrated")
    if score.mIoU > POINTS[-1][0] + MARGIN:
        return Estimate(reason=f"none of the students that were calibrated agrees more than {POINTS[-1][0]:.2f}")
    kept, error = predicted(score.mIoU), 1.64 * held_out_error()
    return Estimate(kept=kept, low=max(0.0, kept - error), high=kept + error)


def predicted(agreed: float) -> float:
    """The share of the teacher's mIoU at an agreement, between the measured students; it never falls."""
    x, y = np.array(POINTS).T
    return min(1.0, float(np.interp(agreed, x, np.maximum.accumulate(y))))


def held_out_error() -> float:
    """Root of the mean squared error on the students of the teacher that took no part."""
    return float(np.mean([(predicted(agreed) - kept) ** 2 for agreed, kept in HELD_OUT]) ** 0.5)
