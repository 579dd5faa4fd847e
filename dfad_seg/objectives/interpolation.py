"""Virtual interpolation: samples and labels between those that the generator made.

An interpretation, for dense prediction, of the virtual interpolation of Qu, Wang and Xiao 2021 (arXiv 2102.11638),
which makes "virtual samples and labels in-between decision boundaries": the paper's text is not open, so the form here
is that of mixup (Zhang et al. 2018), applied to the teacher's logits instead of labels.
"""

import math

import torch
from torch import Tensor

from dfad_seg.common.values import Rate, Share, options


@options
class Interpolation:
    """Virtual samples between generated images, in place of the last ones of each batch of the student.

    They replace rather than join the batch, so that a step costs the same with and without them.
    """

    alpha: Rate = 1.0
    """λ in x̃ = λ x_i + (1 − λ) x_j is drawn from Beta(alpha, alpha) for each sample."""
    share: Share = 0.5
    """Of the batch that is virtual."""

    def left_alone(self, count: int) -> int:
        """How many of `count` samples are not virtual."""
        return count - math.ceil(self.share * count)

    def __call__(self, images: Tensor, logits: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The batch with virtual samples, and the logits that the student should give.

        Args:
            images: (N, 3, H, W).
            logits: the teacher's, (N, C, H, W) or (N, C).
            rng: source of partners and shares, on the images' device.
        """
        partner = torch.randperm(len(images), generator=rng, device=rng.device)
        keep = symmetric_beta(len(images), self.alpha, rng)
        keep[: self.left_alone(len(images))] = 1

        def blend(x: Tensor) -> Tensor:
            own = keep.to(x.dtype).view(-1, *[1] * (x.dim() - 1))
            return own * x + (1 - own) * x[partner]

        return blend(images), blend(logits)


def symmetric_beta(count: int, alpha: float, rng: torch.Generator) -> Tensor:
    """`count` numbers from Beta(α, α), α > 0: X / (X + Y) of gamma variates; torch's own Beta takes no generator."""
    alphas = torch.full((2, count), alpha, dtype=torch.float64, device=rng.device)
    x, y = torch._standard_gamma(alphas, generator=rng).clamp_min(1e-300)
    return (x / (x + y)).float()
