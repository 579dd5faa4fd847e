"""The generator's loss: a negated discrepancy plus weighted priors."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dfad_seg.objectives.class_shares import ClassShares
from dfad_seg.objectives.discrepancy import Discrepancy
from dfad_seg.objectives.logit_adjustment import LogitAdjustment
from dfad_seg.objectives.priors import Prior, Scene


@dataclass
class GeneratorObjective:
    """loss_G = −w_a · discrepancy(student, teacher) + Σ w_p · prior_p.

    With the defaults and `discrepancy=log_mae` this is DFAD's −log(1 + MAE) (Fang et al. 2019).
    """

    discrepancy: Discrepancy
    """What the generator maximises."""
    adversarial_weight: float = 1.0
    """w_a, ≥ 0; with 0 the student is not asked."""
    priors: Mapping[str, tuple[Prior, float]] = field(default_factory=dict)
    """By name, each with its weight; see `build_priors`."""
    class_shares: ClassShares | None = None
    """Estimates the class shares of the teacher's training data on the way, for the generator's layouts."""
    adjustment: LogitAdjustment | None = None
    """Of the student's logits, as in its own loss; see `student_step`."""

    @property
    def watches_teacher(self) -> bool:
        """Whether something here looks into the teacher, whose layers must then stay as they are."""
        return bool(self._watching())

    def _watching(self) -> list[Any]:
        parts: list[Any] = [self.class_shares, *(prior for prior, _ in self.priors.values())]
        return [part for part in parts if hasattr(part, "watch")]

    @contextmanager
    def watch_teacher(self) -> Iterator[None]:
        """Wrap the teacher's forward pass, into which some of it looks."""
        with ExitStack() as stack:
            for part in self._watching():
                stack.enter_context(part.watch())
            yield

    def __call__(
        self, *, images: Tensor, latents: Any, student_logits: Tensor | None, teacher_logits: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its unweighted terms by name: scalars.

        `student_logits` may be None where the adversarial weight is 0: nothing else looks at them.
        """
        scene = Scene(images, latents, teacher_logits)
        terms: dict[str, Tensor] = {}
        loss = images.new_zeros((), dtype=teacher_logits.dtype)
        if self.adversarial_weight:
            assert student_logits is not None, "the discrepancy needs the student's logits"
            if self.adjustment is not None:
                student_logits = self.adjustment(student_logits)
            terms["discrepancy"] = self.discrepancy(student_logits, teacher_logits)
            loss = loss - self.adversarial_weight * terms["discrepancy"]
        for name, (prior, weight) in self.priors.items():
            terms[name] = prior(scene)
            loss = loss + weight * terms[name]
        return loss, terms
