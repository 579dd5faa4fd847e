"""Rare classes count in the mIoU as frequent ones do: a student whose doubts are resolved for them."""

import torch
from torch import Tensor, nn


class LogitAdjustment(nn.Module):
    """Student logits plus α log π, up to a constant: what is compared with the teacher's in the student's loss.

    The logit-adjusted loss of Menon et al. 2021 (section 4.2), with π the mean of the teacher's probabilities on the
    images that teach. Where the student hesitates between two classes it then names the rarer one, which is wrong for
    pixel accuracy and right for a mean over classes. With the strength α = 1 all classes would count as equally
    frequent; the mIoU, which minds false alarms as well, is best at about half of that. To shift the teacher's logits
    is not the same: the student's doubts are not where the teacher's are.

    Attributes:
        shares: (C,) running mean π, uniform before anything was observed; it sums to 1.
    """

    MEMORY = 0.99
    """What is left of a batch's part in `shares` after each further one."""
    FLOOR = 0.1
    """Of the uniform share: a class that is never predicted is not favoured without bounds."""

    def __init__(self, num_classes: int, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.shares: Tensor
        self.register_buffer("shares", torch.full((num_classes,), 1 / num_classes))
        self.batches: Tensor
        self.register_buffer("batches", torch.zeros(()))

    @torch.no_grad()
    def observe(self, teacher_logits: Tensor) -> None:
        """Take the teacher's logits (N, C, ...) on a new batch into the shares."""
        shares = teacher_logits.float().softmax(dim=1).transpose(0, 1).flatten(1).mean(dim=1)
        self.batches.add_(1)
        self.shares.lerp_(shares, (1 / self.batches).clamp(min=1 - self.MEMORY))

    def forward(self, student_logits: Tensor) -> Tensor:
        """Logits (N, C, ...) to compare with the teacher's; their mean over classes is the same."""
        offsets = self.strength * self.shares.clamp(min=self.FLOOR / len(self.shares)).log()
        offsets = offsets - offsets.mean()
        return student_logits + offsets.view(-1, *[1] * (student_logits.dim() - 2)).to(student_logits.dtype)
