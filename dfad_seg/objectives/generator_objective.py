"""The generator's loss: a negated discrepancy plus weighted priors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from dfad_seg.objectives.discrepancy import Discrepancy
from dfad_seg.objectives.priors import BatchNormPrior, class_balance, layout_consistency, total_variation


class GeneratorObjective:
    """loss_G = −w_a · discrepancy(student, teacher) + Σ w_p · prior_p.

    With the defaults and `discrepancy=log_mae` this is DFAD's −log(1 + MAE) (Fang et al. 2019). A weight of 0
    leaves a term out of the computation altogether.

    Args:
        discrepancy: what the generator maximises.
        adversarial_weight: w_a, ≥ 0.
        batch_norm_prior: the watched prior of the teacher, or None.
        batch_norm_weight: its weight.
        layout_weight: cross-entropy of the teacher's answer against the layout; needs a layout generator.
        balance_weight: class balance hinge.
        variation_weight: total variation of the images.
    """

    def __init__(
        self,
        discrepancy: Discrepancy,
        *,
        adversarial_weight: float = 1.0,
        batch_norm_prior: BatchNormPrior | None = None,
        batch_norm_weight: float = 0.0,
        layout_weight: float = 0.0,
        balance_weight: float = 0.0,
        variation_weight: float = 0.0,
    ) -> None:
        self.discrepancy = discrepancy
        self.adversarial_weight = adversarial_weight
        self.batch_norm_prior = batch_norm_prior
        self.batch_norm_weight = batch_norm_weight
        self.layout_weight = layout_weight
        self.balance_weight = balance_weight
        self.variation_weight = variation_weight

    @contextmanager
    def watch_teacher(self) -> Iterator[None]:
        """Wrap the teacher's forward pass whose statistics the BatchNorm prior needs."""
        if self.batch_norm_prior is None:
            yield
        else:
            with self.batch_norm_prior.watch():
                yield

    def __call__(
        self, *, images: Tensor, latents: Any, student_logits: Tensor, teacher_logits: Tensor
    ) -> dict[str, Tensor]:
        """The unweighted terms by name, and their weighted sum as `"loss"`: scalars."""
        terms: dict[str, Tensor] = {}
        loss = images.new_zeros((), dtype=student_logits.dtype)
        if self.adversarial_weight:
            terms["discrepancy"] = self.discrepancy(student_logits, teacher_logits)
            loss = loss - self.adversarial_weight * terms["discrepancy"]
        if self.batch_norm_prior is not None:
            terms["batch_norm_prior"] = self.batch_norm_prior.value()
            loss = loss + self.batch_norm_weight * terms["batch_norm_prior"]
        if self.layout_weight:
            terms["layout_consistency"] = layout_consistency(teacher_logits, latents.layout)
            loss = loss + self.layout_weight * terms["layout_consistency"]
        if self.balance_weight:
            terms["class_balance"] = class_balance(teacher_logits)
            loss = loss + self.balance_weight * terms["class_balance"]
        if self.variation_weight:
            terms["total_variation"] = total_variation(images)
            loss = loss + self.variation_weight * terms["total_variation"]
        terms["loss"] = loss
        return terms
