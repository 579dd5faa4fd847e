"""Whether training is still healthy: what is noticed, said, and ends a run.

What is looked at costs no wait for the device between two log points: the means of the losses carry any value that was
not finite, and the weights are looked at where something is logged or saved anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

NOT_FINITE = "not_finite"
"""A loss, a weight or a running statistic: the only trouble that ends a run. The others are named, once per spell."""
EXPLODING = "exploding"
COLLAPSE = "collapse"
DEAD_STUDENT = "dead_student"

MAX_LOGIT = 1e4
"""Bound on the size of the student's logits, as the mean of the steps' largest between two log points."""
MIN_ENTROPY = 0.02
"""Entropy of the teacher's classes on generated images, as a share of the greatest: below, the generator collapsed."""
UNDECIDED_SHARE = 0.98
"""Where the teacher sees one class in so many pixels, nobody can tell a dead student from a good one."""
PATIENCE = 500
"""Iterations for which a collapse or a dead student must last before it is named."""

# What the record of a whole run tells, see `judging`.
SATURATED_AGREEMENT = 0.99
"""Agreement on generated images at which they teach nothing more."""
FORGOTTEN_AGREEMENT = 0.03
"""By how much the agreement on remembered images may stay behind that on fresh ones."""
GROWN_LOSS = 3.0
"""Times its lowest level, at which a student's loss has run away."""
LOST_SCORE = 0.8
"""Share of the best score on the way, below which the last one has fallen."""
ONE_CLASS = 0.1
"""Share of the pixels of all classes but the largest that predictions must reach; below, they are one class."""
FEWEST_LINES = 5
"""Of the log, before anything is said."""


@dataclass(frozen=True)
class Trouble:
    """What was found."""

    kind: str
    cause: str


class Health:
    """Reads the logged means; what it remembers is saved and restored with the run.

    Args:
        trained_generator: whether there is a generator that can collapse.
    """

    def __init__(self, *, trained_generator: bool = False) -> None:
        self.trained_generator = trained_generator
        self._since: dict[str, int] = {}
        self._named: set[str] = set()
        self._last_look = 0

    def look(self, iteration: int, scalars: Mapping[str, float]) -> list[Trouble]:
        """What is wrong with the means up to `iteration` since the last look."""
        found: dict[str, str] = {}
        bad = [name for name, value in scalars.items() if name.endswith("loss") and not math.isfinite(value)]
        if bad:
            found[NOT_FINITE] = f"{', '.join(bad)} is not finite"
        peak = scalars.get("train/student_logit_peak", 0.0)
        if not peak <= MAX_LOGIT and not bad:
            found[EXPLODING] = f"the student's logits grow to {peak:.3g}, beyond {MAX_LOGIT:g}"
        entropy = scalars.get("train/student_class_entropy")
        if self.trained_generator and entropy is not None and entropy < MIN_ENTROPY:
            found[COLLAPSE] = (
                f"the teacher sees nearly one class in all generated images (entropy {entropy:.3g} of the greatest)"
            )
        agreement, largest = scalars.get("train/student_agreement"), scalars.get("train/student_largest_class")
        if agreement is not None and largest is not None and agreement <= largest < UNDECIDED_SHARE:
            found[DEAD_STUDENT] = (
                f"the student agrees on {agreement:.3g} of the pixels, and a constant prediction would on {largest:.3g}"
            )
        troubles = []
        for kind in (NOT_FINITE, EXPLODING, COLLAPSE, DEAD_STUDENT):
            if kind not in found:
                self._since.pop(kind, None)
                self._named.discard(kind)
                continue
            lasts = iteration - self._since.setdefault(kind, self._last_look)
            lasting = kind in (COLLAPSE, DEAD_STUDENT)
            if kind not in self._named and not (lasting and lasts < PATIENCE):
                self._named.add(kind)
                troubles.append(Trouble(kind, f"{found[kind]} for {lasts} iterations" if lasting else found[kind]))
        self._last_look = iteration
        return troubles

    def state_dict(self) -> dict[str, Any]:
        """Plain Python."""
        return {"since": dict(self._since), "named": sorted(self._named), "last_look": self._last_look}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._since, self._named, self._last_look = dict(state["since"]), set(state["named"]), state["last_look"]


@torch.no_grad()
def all_finite(networks: Iterable[nn.Module], losses: Iterable[Tensor] = ()) -> Tensor:
    """A flag on the device: 1 where every weight, running statistic and loss is finite, else 0."""
    tensors = [
        tensor
        for network in networks
        for tensor in (*network.parameters(), *network.buffers())
        if tensor.is_floating_point() and tensor.numel()
    ]
    # The largest absolute value, which passes a NaN on.
    peak = get_total_norm(tensors, norm_type=math.inf)
    flags = [torch.isfinite(peak), *(torch.isfinite(loss).all() for loss in losses)]
    return torch.stack(flags).all().float()
