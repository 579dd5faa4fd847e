"""How good a student is where no image has a label: its agreement with the teacher on images nobody trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from dfad_seg.common.labels import labels_of
from dfad_seg.datasets import MetaInfo, SegmentationDataset
from dfad_seg.distill import batch_norm_mode
from dfad_seg.distill.seeds import iteration_rng
from dfad_seg.evaluation import ConfusionMatrix, metrics_from_confusion
from dfad_seg.evaluation.evaluator import evaluating
from dfad_seg.evaluation.pictures import write_comparison_picture
from dfad_seg.generators import ImageGenerator
from dfad_seg.recipes.quality_table import HELD_OUT, POINTS
from dfad_seg.recipes.samples import EvaluationSamples
from dfad_seg.runs import update_summary
from dfad_seg.runs.records import Estimate, Example, Score, Weights

IMAGES, BATCH = 64, 8
MOST_OF_ONE = 0.9
"""Share of the generated pixels that one class may have."""
MARGIN = 0.05
"""Of agreement, beyond what was measured."""

Batches = Iterable[tuple[Sequence[str], Tensor]]
"""Names, none for images that have none, and images (N, 3, H, W) in [0, 1]."""


def held_out_images(
    generator: ImageGenerator, size: tuple[int, int], *, seed: int, device: torch.device | str
) -> Batches:
    """64 generated images of `size` (H, W), of a seed and layouts that no training step had."""
    rng = iteration_rng(seed, 0, 0, device, "held_out")
    for _ in range(IMAGES // BATCH):
        # As in training: the generator normalises by the statistics of its batch.
        with torch.no_grad(), batch_norm_mode(generator, "batch"):
            yield (), generator(generator.sample(BATCH, size, rng))


def unlabelled_images(dataset: SegmentationDataset) -> Batches:
    """The images of a data set, one by one."""
    samples = EvaluationSamples(dataset)
    for sample in (samples[place] for place in range(len(samples))):
        image = sample["image"].permute(2, 0, 1)[None]
        yield (sample["name"],), image.float() / 255 if image.dtype == torch.uint8 else image


def add_agreement(
    run: Path,
    networks: Mapping[str, nn.Module],
    images: Mapping[str, Batches],
    info: MetaInfo,
    weights: Weights,
    *,
    most: int,
) -> None:
    """Note in a run's summary how far its student predicts what the teacher does, and what that says; draw the images
    with names on which it does so best and worst, `most` of each.

    Args:
        networks: by role, on one device.
        images: by what they are called.
    """
    scores = []
    for split, batches in images.items():
        counted = Agreement(networks, info)
        scores.append(counted.score(batches, split, weights))
        if counted.images:
            update_summary(run, examples=tuple(counted.examples(run, most)))
    generated = next((score for score in scores if score.split == "generated"), None)
    spec = getattr(networks["student"], "spec", None) or {}
    guess = None if generated is None else estimate(generated, cut=spec.get("source") == "cut")
    update_summary(run, agreement=tuple(scores), estimate=guess)


class Agreement:
    """A student's predictions against its teacher's, as if these were the truth.

    Attributes:
        images: by name, mIoU and image of those that have names.
    """

    def __init__(self, networks: Mapping[str, nn.Module], info: MetaInfo) -> None:
        self.networks, self.info = networks, info
        self.device = next(networks["student"].parameters()).device
        self.images: dict[str, tuple[float, Tensor]] = {}

    def score(self, batches: Batches, split: str, weights: Weights = "last") -> Score:
        """Over all images."""
        matrix = self._empty()
        for names, images in batches:
            truth, found = self._labels(images)
            matrix.update(found, truth)
            for name, image in zip(names, images, strict=False):
                own = self._empty()
                own.update(found, truth)
                counts = own.compute().numpy()
                miou = image_miou(np.stack([counts.diagonal(), counts.sum(1), counts.sum(0)]))
                self.images[name] = miou or 0.0, image
        metrics = metrics_from_confusion(matrix.compute(), self.info.classes)
        return Score.measured(metrics, network="student", weights=weights, split=split)

    def examples(self, run: Path, most: int) -> Iterator[Example]:
        """Pictures of the worst and the best images, in the run's folder."""
        scores = {name: miou for name, (miou, _) in self.images.items()}
        for number, (kind, name) in enumerate(best_and_worst(scores, most), start=1):
            file, image = f"pictures/examples/{number:02d}_{kind}.png", self.images[name][1]
            truth, found = (labels[0].cpu() for labels in self._labels(image[None]))
            write_comparison_picture(
                run / file, image, truth, {"student": found}, self.info.classes, self.info.palette, truth_name="teacher"
            )
            yield Example(kind=kind, name=name, file=file, miou=scores[name])

    def _empty(self) -> ConfusionMatrix:
        return ConfusionMatrix(self.info.num_classes, self.info.ignore_index, device=self.device)

    def _labels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(teacher's, student's)."""
        teacher, student = self.networks["teacher"], self.networks["student"]
        with torch.no_grad(), evaluating(teacher), evaluating(student):
            images = images.to(self.device)
            return labels_of(teacher(images)), labels_of(student(images))


def image_miou(counts: np.ndarray) -> float | None:
    """The mIoU of one image from its (3, C) pixels of intersection, truth and prediction.

    Mean over the classes that occur in its truth or its prediction; None where nothing is evaluated.
    """
    hits, truth, predicted = counts
    union = truth + predicted - hits
    return float((hits[union > 0] / union[union > 0]).mean()) if truth.sum() else None


def best_and_worst(scores: dict[str, float], count: int) -> list[tuple[Literal["worst", "best"], str]]:
    """(kind, name): the worst images first, then the best; none twice, `count` of each at most."""
    order = sorted(scores, key=lambda name: (scores[name], name))
    half = min(count, (len(order) + 1) // 2)
    best = order[half:][-count:][::-1]
    return [("worst", name) for name in order[:half]] + [("best", name) for name in best]


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
