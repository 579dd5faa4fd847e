"""How good a student is where no image has a label: its agreement with the teacher on images nobody trained on."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dfad_seg.common.modules import evaluating
from dfad_seg.distill.losses import LogitAdjustment
from dfad_seg.distill.rehearsal import generated
from dfad_seg.evaluation import Inference, predict
from dfad_seg.generators import ImageGenerator
from dfad_seg.runs.records import Estimate, Score
from dfad_seg.segmentors import Segmentor

IMAGES, BATCH = 64, 8
MOST_OF_ONE = 0.9
"""Share of the generated pixels that one class may have."""
MARGIN = 0.05
"""Of agreement, beyond what was measured."""
FEWEST = 8
"""Classes in the generated images; the calibrated teachers have 11 and 21."""
LEAST = 0.6
"""Agreement below which spoilt students of different teachers keep very different shares."""
# What agreement on generated images has meant: students as they were cut, of checkpoints, and with noise on their
# weights, scored with labels and without by `python benchmarks/quality.py RUN ...` on finished runs. Pairs of (mIoU of
# agreement with the teacher, share of the teacher's mIoU on labelled images). `points` are students cut out of CamVid's
# MobileNetV2 (`camvid/cut_33`) and the street scenes' ResNet-18 (`cut_50`); `held_out` those of teachers that took no
# part, all cut to a half: the street scenes' ResNet-50 and SegFormer, and VOC's MobileNetV2.
POINTS, HELD_OUT = json.loads(Path(__file__).with_name("calibration.json").read_text(encoding="utf-8")).values()


def held_out_images(generator: ImageGenerator, size: tuple[int, int], *, seed: int) -> Iterator[dict[str, Any]]:
    """Batches of 64 generated images of `size` (H, W), of a seed and layouts that no training step had."""
    made = generated(generator, IMAGES, batch_size=BATCH, image_size=size, seed=seed, stream="held_out")
    for number, images in enumerate(made):
        yield {"image": images, "name": [f"generated image {number}.{place}" for place in range(BATCH)]}


def labelled_by(teacher: nn.Module, batches: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Batches to evaluate, whose truth is what the teacher predicts."""
    device = next(teacher.parameters()).device
    for batch in batches:
        images = batch["image"].to(device)
        height, width = images.shape[1:3] if images.dtype == torch.uint8 else images.shape[2:]
        with torch.no_grad(), evaluating(teacher):
            truth = predict(teacher, images, (height, width), Inference(), names=batch["name"])
        yield {**batch, "mask": truth}


def unshifted(
    student: Segmentor, teacher: Segmentor, batches: Iterable[Mapping[str, Any]], strength: float
) -> nn.Module:
    """A student whose logits (N, C, H, W) are as its loss compared them with the teacher's: plus α log π, without the
    shift towards rare classes that `logit_adjustment` has taught it.

    Args:
        batches: images from which π, the teacher's mean probabilities, are taken.
        strength: α.
    """
    adjustment = LogitAdjustment(teacher.num_classes, strength).to(next(student.parameters()).device)
    for batch in batches:
        with torch.no_grad(), evaluating(teacher):
            adjustment.observe(teacher(batch["image"]))
    return nn.Sequential(student, adjustment)


def estimate(score: Score, *, cut: bool) -> Estimate:
    """What share of the teacher's mIoU the agreement on generated images says that a student keeps, 1 at most.

    It rises with the agreement as it did for students that were cut out of some teachers; low and high are 1.64 times
    the error that this has on students of other teachers.

    Args:
        score: on generated images, of the student as `unshifted`.
        cut: whether the student was cut out of its teacher. Of others it is known that they can agree on the images
            which they learnt from, and fail on real ones: none is given.
    """
    seen = [pixels / sum(score.support) for pixels in score.support]
    if max(seen) > MOST_OF_ONE or sum(share > 0 for share in seen) <= len(seen) / 2:
        return Estimate(reason="the teacher sees too few classes in the generated images")
    if sum(share > 0 for share in seen) < FEWEST:
        return Estimate(reason=f"only teachers of {FEWEST} and more classes have been calibrated")
    if not cut:
        return Estimate(reason="only students that were cut out of their teacher have been calibrated")
    if score.mIoU < LEAST:
        return Estimate(
            reason=f"below an agreement of {LEAST:g} students of different teachers keep very different shares"
        )
    if score.mIoU > POINTS[-1][0] + MARGIN:
        return Estimate(reason=f"none of the students that were calibrated agrees more than {POINTS[-1][0]:.2f}")
    kept, error = predicted(score.mIoU), 1.64 * held_out_error()
    return Estimate(kept=kept, low=max(0.0, kept - error), high=kept + error)


def predicted(agreed: float) -> float:
    """The share of the teacher's mIoU at an agreement, between the measured students; it never falls."""
    x, y = np.array(POINTS).T
    return min(1.0, float(np.interp(agreed, x, np.maximum.accumulate(y))))


def held_out_error() -> float:
    """Root of the mean squared error on the students of teachers that took no part, where there is an estimate."""
    return float(np.mean([(predicted(agreed) - kept) ** 2 for agreed, kept in HELD_OUT if agreed >= LEAST]) ** 0.5)
