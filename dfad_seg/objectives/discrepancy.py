"""Discrepancies between a student's and a teacher's logits.

Each is `(student_logits, teacher_logits) -> scalar`: never negative, zero at equality, with no sign and no
role inside. The student minimises a discrepancy, the generator maximises one. Logits have shape (N, C, ...):
dense (N, C, H, W) or a classifier's (N, C). All arithmetic is in float32, whatever precision the networks ran in.
"""

from __future__ import annotations

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


def mse(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean squared difference of the logits."""
    return F.mse_loss(student_logits.float(), teacher_logits.float())


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


def cosine(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """1 − cosine of the two class vectors, mean over samples and pixels, in [0, 2]: direction without length."""
    # As half the squared distance of the unit vectors, which is exactly 0 at equality, for zero vectors too.
    student, teacher = (F.normalize(logits.float(), dim=1) for logits in (student_logits, teacher_logits))
    return 0.5 * (student - teacher).square().sum(dim=1).mean()


def balanced_mae(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """MAE with each position weighted by the inverse frequency of the teacher's class there.

    The MAE over the positions of each class that the teacher answers in the batch, averaged over these classes: a
    class on a hundredth of the pixels counts as much as one on half of them. A single position can come to count as
    much as a class, so the gradient is noisier than MAE's.
    """
    gaps = (student_logits.float() - teacher_logits.float()).abs().mean(dim=1).flatten()
    labels = teacher_logits.argmax(dim=1).flatten()
    counts = gaps.new_zeros(teacher_logits.shape[1]).scatter_add_(0, labels, torch.ones_like(gaps))
    return (gaps / counts[labels]).sum() / (counts > 0).sum()


def normalised_mae(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """MAE of logits standardised over the classes at each position.

    After logit standardisation (Sun et al. 2024, eq. 5): the student need not copy the scale and the offset of the
    teacher's logits, only the relations among its classes.
    """
    return F.l1_loss(standardised(student_logits), standardised(teacher_logits))


def normalised_kl(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """`kl` of logits standardised over the classes at each position (Sun et al. 2024, algorithm 1)."""
    return kl(standardised(student_logits), standardised(teacher_logits), temperature=temperature)


def boundary_mae(student_logits: Tensor, teacher_logits: Tensor, *, radius: int = 2, factor: float = 5.0) -> Tensor:
    """MAE in which positions near a boundary between the teacher's labels count `factor` times.

    Near is: another label within `radius` pixels, along the axes or diagonally. The weights are divided by their sum.
    A classifier's logits (N, C) have no neighbours, and this is MAE.
    """
    gaps = (student_logits.float() - teacher_logits.float()).abs().mean(dim=1)
    if gaps.dim() == 1:
        return gaps.mean()
    pool = {2: F.max_pool1d, 3: F.max_pool2d, 4: F.max_pool3d}[gaps.dim()]
    labels = teacher_logits.argmax(dim=1, keepdim=True).float()
    # A maximum and a minimum over the window: kernel, stride and padding.
    highest, lowest = (sign * pool(sign * labels, 2 * radius + 1, 1, radius) for sign in (1, -1))
    near = (highest != lowest).squeeze(1)
    weights = 1 + (factor - 1) * near.float()
    return (weights * gaps).sum() / weights.sum()


def standardised(logits: Tensor) -> Tensor:
    """Logits (N, C, ...) with mean 0 and standard deviation 1 over the classes at each position."""
    logits = logits.float()
    variance, mean = torch.var_mean(logits, dim=1, correction=0, keepdim=True)
    # Inside the root, so that equal logits have a finite gradient.
    return (logits - mean) / (variance + 1e-6).sqrt()


DISCREPANCIES: dict[str, Discrepancy] = {
    "mae": mae,
    "log_mae": log_mae,
    "mse": mse,
    "kl": kl,
    "jensen_shannon": jensen_shannon,
    "cosine": cosine,
    "balanced_mae": balanced_mae,
    "normalised_mae": normalised_mae,
    "normalised_kl": normalised_kl,
    "boundary_mae": boundary_mae,
}

TEMPERED: dict[str, Callable[..., Tensor]] = {
    "kl": kl,
    "jensen_shannon": jensen_shannon,
    "normalised_kl": normalised_kl,
}
"""Those of them that take a `temperature`."""


def weighted_discrepancy(weights: Mapping[str, float], *, temperature: float = 1.0) -> Discrepancy:
    """The weighted sum of named discrepancies, e.g. `{"mae": 1.0, "kl": 0.5}`, at a temperature where they take one.

    Raises:
        InputError: a name is unknown.
    """
    terms = [(choose(DISCREPANCIES, name, "discrepancy"), name, weight) for name, weight in weights.items()]

    def total(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        values = []
        for term, name, weight in terms:
            options = {"temperature": temperature} if name in TEMPERED else {}
            values.append(weight * term(student_logits, teacher_logits, **options))
        return torch.stack(values).sum()

    return total
