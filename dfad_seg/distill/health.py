"""Whether training is still healthy, and what is to be done where it is not.

What is looked at costs no wait for the device between two log points: the means of the losses carry any value that was
not finite, and the weights are looked at where something is logged or saved anyway. Only the policy `skip` waits in
every step, as it must know the gradients before it uses them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

NOT_FINITE = "not_finite"
EXPLODING = "exploding"
COLLAPSE = "collapse"
DEAD_STUDENT = "dead_student"

UNDECIDED_SHARE = 0.98
"""Where the teacher answers one class on so many pixels, nobody can tell a dead student from a good one."""


@dataclass
class HealthSettings:
    """Policies and limits; docs/reliability.md explains them."""

    not_finite: str = "stop"
    """stop, skip (the step) or roll_back, where a loss, a gradient or a weight is not finite."""
    exploding: str = "warn"
    """ignore, warn, roll_back or stop, where the student's logits exceed `max_logit`."""
    collapse: str = "warn"
    """The same, where all of the teacher's answers to the generated images are of nearly one class."""
    dead_student: str = "warn"
    """The same, where the student agrees with the teacher no better than a constant answer would."""
    max_logit: float = 1e4
    """Bound on the size of the student's logits, as the mean of the steps' largest between two log points."""
    min_entropy: float = 0.02
    """Entropy of the teacher's classes, as a share of the greatest, at which a generator counts as collapsed."""
    patience: int = 500
    """Iterations for which a collapse or a dead student must last before something is done about it."""
    roll_backs: int = 3
    """Most returns to an earlier state in one run; then it stops."""
    rate_factor: float = 0.5
    """Factor on all learning rates at each return."""
    skips: int = 100
    """Most steps to skip one after the other; then the run stops."""


@dataclass(frozen=True)
class Trouble:
    """What was found, and what the policy says."""

    kind: str
    cause: str
    action: str
    since: int
    """The last iteration of which nothing bad is known."""


class _BadGradients(Exception):
    """Ends a step before its optimiser changes anything."""


class Health:
    """The memory behind the policies; it is saved and restored with the run.

    Args:
        settings: policies and limits.
        trained_generator: whether there is a generator that can collapse.
    """

    def __init__(self, settings: HealthSettings, *, trained_generator: bool = False) -> None:
        self.settings = settings
        self.trained_generator = trained_generator
        self.rate_scale = 1.0
        """Factor on all learning rates, from what was rolled back."""
        self.roll_backs = 0
        self.skipped = 0
        self._in_a_row: dict[str, int] = {}  # by what is attempted, as the two players take turns
        self._good_until: dict[str, int] = {}
        self._warned: set[str] = set()
        self._last_look = 0
        self._skips_to_report = 0
        self._networks: list[nn.Module] = []

    def watch(self, networks: Iterable[nn.Module], optimizers: Iterable[Optimizer]) -> None:
        """Under the policy `skip`, look at the gradients before each step of these optimisers."""
        self._networks = list(networks)
        if self.settings.not_finite == "skip":
            for optimizer in optimizers:
                plain = getattr(optimizer, "optimizer", optimizer)  # inside Fabric's wrapper
                plain.register_step_pre_hook(_refuse_bad_gradients)

    @property
    def may_roll_back(self) -> bool:
        """Whether any policy goes back to an earlier state."""
        policies = self.settings
        return "roll_back" in (policies.not_finite, policies.exploding, policies.collapse, policies.dead_student)

    def attempt(
        self, step: Callable[..., dict[str, Tensor]], *arguments: Any, **named: Any
    ) -> dict[str, Tensor] | None:
        """`step(...)`; None if it was skipped, and then no weight and no running statistic has changed."""
        if self.settings.not_finite != "skip":
            return step(*arguments, **named)
        name = getattr(step, "__name__", "step")
        buffers = [buffer for network in self._networks for buffer in network.buffers()]
        kept = [buffer.clone() for buffer in buffers]
        try:
            result = step(*arguments, **named)
        except _BadGradients:
            for buffer, value in zip(buffers, kept, strict=True):
                buffer.copy_(value)
            self.skipped += 1
            self._in_a_row[name] = self._in_a_row.get(name, 0) + 1
            self._skips_to_report += 1
            return None
        self._in_a_row.pop(name, None)
        return result

    def take_skips(self) -> int:
        """How many steps were skipped since the last call."""
        count, self._skips_to_report = self._skips_to_report, 0
        return count

    def look(self, iteration: int, scalars: dict[str, float]) -> list[Trouble]:
        """What the means up to `iteration` since the last look say; each spell of warning trouble is named once."""
        found: dict[str, str] = {}
        bad = [name for name, value in scalars.items() if name.endswith("loss") and not math.isfinite(value)]
        if bad:
            found[NOT_FINITE] = f"{', '.join(bad)} is not finite"
        peak = scalars.get("train/student_logit_peak", 0.0)
        if not peak <= self.settings.max_logit and not bad:
            found[EXPLODING] = f"the student's logits grow to {peak:.3g}, beyond max_logit {self.settings.max_logit:g}"
        entropy = scalars.get("train/student_class_entropy")
        if self.trained_generator and entropy is not None and entropy < self.settings.min_entropy:
            found[COLLAPSE] = (
                f"the teacher answers nearly one class on all generated images (entropy {entropy:.3g} of the greatest)"
            )
        agreement, largest = scalars.get("train/student_agreement"), scalars.get("train/student_largest_class")
        if agreement is not None and largest is not None and agreement <= largest < UNDECIDED_SHARE:
            found[DEAD_STUDENT] = (
                f"the student agrees on {agreement:.3g} of the pixels, and a constant answer would on {largest:.3g}"
            )
        troubles = []
        for kind in (NOT_FINITE, EXPLODING, COLLAPSE, DEAD_STUDENT):
            if kind not in found:
                self._good_until.pop(kind, None)
                self._warned.discard(kind)
                continue
            # What is saved has been found finite, so the newest saved state is good enough there.
            since = self._good_until.setdefault(kind, iteration if kind == NOT_FINITE else self._last_look)
            lasting = kind in (COLLAPSE, DEAD_STUDENT)
            if lasting and iteration - since < self.settings.patience:
                continue
            cause = f"{found[kind]} for {iteration - since} iterations" if lasting else found[kind]
            trouble = self._judge(kind, cause, since)
            if trouble is not None:
                troubles.append(trouble)
        self._last_look = iteration
        return troubles

    def look_at_weights(self, iteration: int, *, finite: bool) -> Trouble | None:
        """What it means that the weights are, or are not, finite after `iteration`; see `all_finite`."""
        in_a_row = max(self._in_a_row.values(), default=0)
        if finite and in_a_row <= self.settings.skips:
            return None
        if finite:
            cause = f"{in_a_row} steps one after the other had gradients that are not finite"
        else:
            cause = "the networks' weights or statistics are not finite, as some gradients or activations were not"
        return self._judge(NOT_FINITE, cause, iteration)

    def roll_back(self) -> None:
        """Note that an earlier state is taken up again, at lower learning rates."""
        self.roll_backs += 1
        self.rate_scale *= self.settings.rate_factor
        self._good_until, self._in_a_row = {}, {}
        self._warned.clear()

    def _judge(self, kind: str, cause: str, since: int) -> Trouble | None:
        action = getattr(self.settings, kind)
        if kind == NOT_FINITE and action == "skip":
            action = "stop"  # what is not finite in spite of the skipped steps cannot be skipped
        if action == "roll_back" and self.roll_backs >= self.settings.roll_backs:
            cause, action = f"{cause}, after {self.roll_backs} returns to an earlier state", "stop"
        if action == "ignore" or (action == "warn" and kind in self._warned):
            return None
        self._warned.add(kind)
        return Trouble(kind, cause, action, since)

    def state_dict(self) -> dict[str, Any]:
        """Plain Python."""
        return {
            "rate_scale": self.rate_scale,
            "roll_backs": self.roll_backs,
            "skipped": self.skipped,
            "in_a_row": dict(self._in_a_row),
            "good_until": dict(self._good_until),
            "warned": sorted(self._warned),
            "last_look": self._last_look,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rate_scale, self.roll_backs, self.skipped = state["rate_scale"], state["roll_backs"], state["skipped"]
        self._in_a_row, self._last_look = dict(state["in_a_row"]), state["last_look"]
        self._good_until, self._warned = dict(state["good_until"]), set(state["warned"])


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


def _refuse_bad_gradients(optimizer: Optimizer, arguments: Any, named: Any) -> None:
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if gradients and not bool(torch.isfinite(get_total_norm(gradients, norm_type=math.inf))):
        raise _BadGradients
