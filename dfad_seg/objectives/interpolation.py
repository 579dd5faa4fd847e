"""Virtual interpolation: samples and labels between those that the generator made.

An interpretation, for dense prediction, of the virtual interpolation of Qu, Wang and Xiao 2021 (arXiv 2102.11638),
which makes "virtual samples and labels in-between decision boundaries": the paper's text is not open, so the forms here
are those of mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019), applied to the teacher's logits instead of labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dfad_seg.common.values import Rate, Share, options


class Mixing(NamedTuple):
    """Which sample each one is blended with, and how much of itself it keeps where."""

    partner: Tensor
    """(N,) indices, a permutation."""
    keep: Tensor
    """(N, 1, 1, 1) in [0, 1] for mixup; (N, 1, H, W) of zeros and ones for CutMix."""

    def blend(self, x: Tensor) -> Tensor:
        """keep · x + (1 − keep) · x[partner], for images or for logits (N, C, ...).

        Where x has other pixels than the images, `keep` is averaged over each of them, and for a classifier's logits
        over the whole image.
        """
        keep = self.keep.to(x.dtype)
        if x.dim() == 4 and keep.shape[2:] != (1, 1):
            keep = F.adaptive_avg_pool2d(keep, (x.shape[2], x.shape[3]))
        elif x.shape[2:] != keep.shape[2:]:
            keep = keep.flatten(1).mean(dim=1).view(-1, *[1] * (x.dim() - 1))
        return keep * x + (1 - keep) * x[self.partner]


class Lesson(NamedTuple):
    """What the student is shown, what it should predict, and what the teacher was shown for that."""

    images: Tensor
    targets: Tensor
    """Logits that the student should give."""
    teacher_images: Tensor
    teacher_logits: Tensor
    """The teacher's, of `teacher_images`."""
    matching: int
    """So many samples, from the first on, were shown to teacher and student alike."""

    @classmethod
    def of(cls, images: Tensor, logits: Tensor) -> Lesson:
        """Both networks see the images, and the teacher's logits are the target."""
        return cls(images, logits, images, logits, len(images))


@options
class Interpolation:
    """Virtual samples between generated images, in place of the last ones of each batch of the student.

    They replace rather than join the batch, so that a step costs the same with and without them; with interpolated
    labels the teacher predicts the batch as it was, so that not even another pass of the teacher is needed.
    """

    type: Literal["mixup", "cutmix"]
    """mixup: x̃ = λ x_i + (1 − λ) x_j; cutmix: a box of the area 1 − λ, cut from x_j into x_i."""
    alpha: Rate = 1.0
    """λ is drawn from Beta(alpha, alpha) for each sample."""
    share: Share = 0.5
    """Of the batch that is virtual."""
    labels: Literal["interpolated", "teacher"] = "interpolated"
    """The teacher's logits blended as the images are, or its prediction on the virtual image."""

    def left_alone(self, count: int) -> int:
        """How many of `count` samples are not virtual."""
        return count - math.ceil(self.share * count)

    def __call__(self, images: Tensor, predict: Callable[[Tensor], Tensor], rng: torch.Generator) -> Lesson:
        """Interpolate a batch.

        Args:
            images: (N, 3, H, W).
            predict: images to the teacher's logits, (N, C, H, W) or (N, C); called once.
            rng: source of partners, shares and boxes, on the images' device.
        """
        mixing = draw_mixing(self.type, images.shape, alpha=self.alpha, rng=rng)
        real = self.left_alone(len(images))
        mixed = torch.cat([images[:real], mixing.blend(images)[real:]])
        if self.labels == "teacher":
            return Lesson.of(mixed, predict(mixed))
        logits = predict(images)
        return Lesson(mixed, torch.cat([logits[:real], mixing.blend(logits)[real:]]), images, logits, real)


def draw_mixing(kind: str, shape: torch.Size | tuple[int, ...], *, alpha: float, rng: torch.Generator) -> Mixing:
    """Random partners and shares for a batch of images of `shape` (N, C, H, W).

    A CutMix box has the sides √(1 − λ) · (H, W), in whole pixels, and a centre anywhere; what reaches over the border
    is cut off (Yun et al. 2019, eq. 2).
    """
    count, (height, width) = shape[0], shape[-2:]
    partner = torch.randperm(count, generator=rng, device=rng.device)
    keep = symmetric_beta(count, alpha, rng).view(count, 1, 1, 1)
    if kind == "mixup":
        return Mixing(partner, keep)
    side = (1 - keep).sqrt()
    centre = torch.rand(2, count, 1, 1, 1, generator=rng, device=rng.device)
    rows = torch.arange(height, device=rng.device).view(1, 1, height, 1)
    columns = torch.arange(width, device=rng.device).view(1, 1, 1, width)

    def inside(position: Tensor, middle: Tensor, extent: int) -> Tensor:
        first = (middle * extent - side * extent / 2).round()
        return (position >= first) & (position < first + (side * extent).round())

    box = inside(rows, centre[0], height) & inside(columns, centre[1], width)
    return Mixing(partner, (~box).float())


def symmetric_beta(count: int, alpha: float, rng: torch.Generator) -> Tensor:
    """`count` numbers from Beta(α, α), α > 0: X / (X + Y) of gamma variates; torch's own Beta takes no generator."""
    alphas = torch.full((2, count), alpha, dtype=torch.float64, device=rng.device)
    x, y = torch._standard_gamma(alphas, generator=rng).clamp_min(1e-300)
    return (x / (x + y)).float()
