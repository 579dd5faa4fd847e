"""Sums between two log points. They stay on the device: reading one would stall the queue."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class Meters:
    """Means of scalars, and the shares of the classes in predictions, between two log points.

    The sums stay on the device: reading one would stall the queue.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._shares: dict[str, Tensor] = {}
        """Of the classes, the sum over batches, by prefix."""

    def add(self, prefix: str, values: Mapping[str, Tensor]) -> None:
        """Count scalars under `prefix` + their names."""
        for name, value in values.items():
            key = f"{prefix}{name}"
            self._sums[key] = self._sums.get(key, 0) + value.float()
            self._counts[key] = self._counts.get(key, 0) + 1

    @torch.no_grad()
    def add_classes(self, prefix: str, logits: Tensor) -> None:
        """Count the predicted classes of logits (N, C, ...)."""
        # Not bincount, which makes a GPU's queue wait.
        labels = logits.argmax(dim=1).flatten()
        counts = torch.zeros(logits.shape[1], device=labels.device)
        counts.scatter_add_(0, labels, torch.ones_like(labels, dtype=torch.float32))
        self._shares[prefix] = self._shares.get(prefix, 0) + counts / labels.numel()

    def losses(self) -> list[Tensor]:
        """The sums of the losses so far."""
        return [total for name, total in self._sums.items() if name.endswith("loss")]

    def flush(self, reduce_mean: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The means over all ranks, as floats; and start anew.

        Of predicted classes, under their prefix: `largest_class`, the largest share, and `class_entropy`, normalised
        (1: uniform, 0: one class only), which shows a collapse.
        """
        scalars = {name: float(reduce_mean(self._sums[name] / self._counts[name])) for name in sorted(self._sums)}
        for prefix, total in sorted(self._shares.items()):
            shares = reduce_mean(total / total.sum()).double()
            safe = shares.clamp_min(1e-12)
            scalars[f"{prefix}class_entropy"] = max(0.0, float(-(safe * safe.log()).sum()) / math.log(len(shares)))
            scalars[f"{prefix}largest_class"] = float(shares.max())
        self._sums, self._counts, self._shares = {}, {}, {}
        return scalars

    def state_dict(self) -> dict[str, Any]:
        """What was counted so far: a run that is stopped between two log points goes on with it."""
        return {"sums": dict(self._sums), "counts": dict(self._counts), "shares": dict(self._shares)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._counts = dict(state["counts"])
        self._shares = {name: value.to(device) for name, value in state["shares"].items()}
