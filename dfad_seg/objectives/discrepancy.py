"""Discrepancies between a student's and a teacher's logits.

Each is `(student_logits, teacher_logits) -> scalar`: never negative, zero at equality, with no sign and no role inside.
The student minimises a discrepancy, the generator maximises one. Logits have shape (N, C, ...): dense (N, C, H, W) or a
classifier's (N, C). All arithmetic is in float32, whatever precision the networks ran in. Below them stand what shifts
the student's logits before they are compared, and the loss against labels.
"""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfad_seg.common.errors import choose

Discrepancy = Callable[..., Tensor]
"""`(student_logits, teacher_logits) -> scalar`."""


def mae(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean absolute difference of the logits: DFAD's discrepancy (Fang et al. 2019, eq. 4)."""
    return F.l1_loss(student_logits.float(), teacher_logits.float())


def log_mae(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """log(1 + MAE): its negative is DFAD's generator loss for segmentation (Fang et al. 2019).

    The logarithm bounds the pull of a generator that has already found a large disagreement.
    """
    return torch.log1p(mae(student_logits, teacher_logits))


def kl(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """T² · KL(teacher ‖ student) of the class distributions softmax(z / T), mean over samples and pixels, in nats.

    The knowledge distillation loss of Hinton et al. 2015; T² keeps the gradient's size independent of T.
    """
    student_log = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher_log = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    per_position = (teacher_log.exp() * (teacher_log - student_log)).sum(dim=1)
    return temperature**2 * per_position.mean().clamp_min(0)


def jensen_shannon(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """T² · the Jensen-Shannon divergence of the class distributions softmax(z / T), mean over samples and pixels, in
    nats (≤ T² log 2).

    Maximised by the generator it is the competition term of DeepInversion (Yin et al. 2020, eq. 8), up to sign.
    """
    student_log = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher_log = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    middle_log = torch.logaddexp(student_log, teacher_log) - math.log(2)
    student_part = (student_log.exp() * (student_log - middle_log)).sum(dim=1)
    teacher_part = (teacher_log.exp() * (teacher_log - middle_log)).sum(dim=1)
    return temperature**2 * (0.5 * (student_part + teacher_part)).mean().clamp_min(0)


DISCREPANCIES: dict[str, Discrepancy] = {
    "mae": mae,
    "log_mae": log_mae,
    "kl": kl,
    "jensen_shannon": jensen_shannon,
}

TEMPERED = frozenset({"kl", "jensen_shannon"})
"""Those of them that take a `temperature`."""


def weighted_discrepancy(weights: Mapping[str, float], *, temperature: float = 1.0) -> Discrepancy:
    """The weighted sum of named discrepancies, e.g. `{"mae": 1.0, "kl": 0.5}`, at a temperature where they take one.

    Raises:
        InputError: a name is unknown.
    """
    terms = [
        (choose(DISCREPANCIES, name, "discrepancy"), weight, {"temperature": temperature} if name in TEMPERED else {})
        for name, weight in weights.items()
    ]

    def total(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        values = [weight * term(student_logits, teacher_logits, **options) for term, weight, options in terms]
        return torch.stack(values).sum()

    return total


def focal_loss(logits: Tensor, labels: Tensor, *, gamma: float = 2.0, ignore_index: int = 255) -> Tensor:
    """Focal loss, the mean of −(1 − p_t)^γ log p_t over labelled pixels (Lin et al. 2017, eq. 4).

    With γ = 0 it is the cross-entropy.

    Args:
        logits: (N, C, H, W).
        labels: (N, H, W) class ids; `ignore_index` takes no part. All ignored gives 0.
        gamma: focusing exponent, ≥ 0.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    valid = labels != ignore_index
    target = labels.where(valid, 0)
    log_pt = log_p.gather(1, target.unsqueeze(1)).squeeze(1)
    # Bounded away from 0, where a power below 1 has no derivative.
    per_pixel = -((1 - log_pt.exp()).clamp_min(1e-6) ** gamma) * log_pt if gamma else -log_pt
    return (valid * per_pixel).sum() / valid.sum().clamp_min(1)


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
        self.shares = nn.Buffer(torch.full((num_classes,), 1 / num_classes))
        self.batches = nn.Buffer(torch.zeros(()))

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
