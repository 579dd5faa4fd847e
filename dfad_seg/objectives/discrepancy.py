"""Discrepancies between a student's and a teacher's logits.

Each is `(student_logits, teacher_logits) -> scalar`: never negative, zero at equality, with no sign and no role inside.
The student minimises a discrepancy, the generator maximises one. Logits have shape (N, C, ...): dense (N, C, H, W) or a
classifier's (N, C). All arithmetic is in float32, whatever precision the networks ran in.
"""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

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
