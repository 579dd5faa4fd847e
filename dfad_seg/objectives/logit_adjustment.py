"""Rare classes count in the mIoU as frequent ones do: the teacher's answers, shifted towards them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LogitAdjustment(nn.Module):
    """Teacher logits plus −τ log π, up to a constant: what a student is to imitate so that it keeps rare classes.

    Logit adjustment (Menon et al. 2021, section 4.1) of the teacher, with π the mean of its probabilities on the images
    that teach. Where the teacher hesitates, and a student after it, the frequent one of two classes is right for the
    share of right pixels and wrong for a mean over classes. With τ = 1 all classes would count as equally frequent; the
    mIoU, which minds false alarms as well, is best at about half of that. The student learns the correction with all
    the rest, so its form does not change.

    Args:
        num_classes: C.
        strength: τ ≥ 0.

    Attributes:
        shares: (C,) running mean π, uniform before anything was observed; it sums to 1.
    """

    MEMORY = 0.99
    """What is left of a batch's part in `shares` after each further one."""
    FLOOR = 0.1
    """Of the uniform share: a class that is never answered is not raised without bounds."""

    def __init__(self, num_classes: int, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.shares: Tensor
        self.register_buffer("shares", torch.full((num_classes,), 1 / num_classes))
        self.batches: Tensor
        self.register_buffer("batches", torch.zeros(()))

    @torch.no_grad()
    def observe(self, teacher_logits: Tensor) -> None:
        """Take the teacher's answers (N, C, ...) on a new batch into the shares."""
        shares = teacher_logits.float().softmax(dim=1).transpose(0, 1).flatten(1).mean(dim=1)
        self.batches.add_(1)
        self.shares.lerp_(shares, (1 / self.batches).clamp(min=1 - self.MEMORY))

    def forward(self, teacher_logits: Tensor) -> Tensor:
        """Logits (N, C, ...) to imitate; their mean over classes is the same."""
        offsets = -self.strength * self.shares.clamp(min=self.FLOOR / len(self.shares)).log()
        offsets = offsets - offsets.mean()
        return teacher_logits + offsets.view(-1, *[1] * (teacher_logits.dim() - 2)).to(teacher_logits.dtype)
