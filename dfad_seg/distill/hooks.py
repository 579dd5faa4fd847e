"""What a training loop tells the outside world, and the sums it keeps on the device meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Evaluate = Callable[[nn.Module], dict[str, float]]


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _never() -> bool:
    return False


@dataclass
class Hooks:
    """Callbacks of a loop; each runs after an iteration whose 1-based number is a multiple of its interval.

    `evaluate`, `save` and `preview` also run after the last iteration. An interval of 0 means only then.
    """

    log: Callable[[int, dict[str, float]], None] = _nothing
    """(iteration, scalars): training metrics since the last call, or an evaluation's."""
    evaluate: Evaluate | None = None
    """(network) -> scalars such as `val/mIoU`. The loops never see what it evaluates on."""
    save: Callable[[int, dict[str, Any]], None] = _nothing
    """(iteration, state): a resumable state of tensors and plain Python."""
    event: Callable[[int, dict[str, Any]], None] = _nothing
    """(iteration, record): something went wrong: `event` (what), `cause` and `found_at` (the iteration)."""
    preview: Callable[[int, Tensor, Tensor, Tensor], None] = _nothing
    """(iteration, images, teacher's labels, student's labels) of some generated images."""
    advance: Callable[[int], None] = _nothing
    """(iteration): after every iteration."""
    stop_requested: Callable[[], bool] = _never
    """Asked after every iteration; True saves the state and raises `Interrupted`."""
    log_every: int = 10
    evaluate_every: int = 0
    save_every: int = 0
    preview_every: int = 0


def is_due(iteration: int, every: int, last: int) -> bool:
    """Whether something with interval `every` is due after `iteration` of `last`."""
    return iteration == last or (every > 0 and iteration % every == 0)


class RunningMeans:
    """Means of tensors between two log points. They stay on the device: reading one would stall the queue."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, prefix: str, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            key = f"{prefix}{name}"
            self._sums[key] = self._sums.get(key, 0) + value.float()
            self._counts[key] = self._counts.get(key, 0) + 1

    def losses(self) -> list[Tensor]:
        """The sums of the losses so far."""
        return [total for name, total in self._sums.items() if name.endswith("loss")]

    def state_dict(self) -> dict[str, Any]:
        """The sums so far: a run that is stopped between two log points goes on with them."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._counts = dict(state["counts"])

    def flush(self, reduce_mean: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The means over all ranks, as floats; and start anew.

        A vector of class shares named `…classes` becomes `…class_share/0`, `…class_share/1` and so on, its normalised
        entropy (1 uniform, 0 one class only) and the largest share: the numbers that show a generator's collapse.
        """
        means = {name: reduce_mean(total / self._counts[name]) for name, total in sorted(self._sums.items())}
        self._sums, self._counts = {}, {}
        scalars: dict[str, float] = {}
        for name, value in means.items():
            if name.endswith("classes"):
                share = value.double().clamp_min(1e-12)
                entropy = -(share * share.log()).sum() / torch.log(torch.tensor(float(len(share))))
                scalars[name.replace("classes", "class_entropy")] = max(0.0, float(entropy))
                scalars[name.replace("classes", "largest_class")] = float(share.max())
                scalars |= {name.replace("classes", f"class_share/{i}"): float(v) for i, v in enumerate(value)}
            else:
                scalars[name] = float(value)
        return scalars
