"""The best network by evaluation, kept beside the last one on request; never the result of a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from dfad_seg.common.errors import InputError
from dfad_seg.distill import Hooks
from dfad_seg.segmentors import read_segmentor_file

Save = Callable[[Path, nn.Module, dict[str, Any]], None]
"""(path, network, plain values to store with it)."""


def keep_best(hooks: Hooks, *, run: Path, split: str, start: int, save: Save) -> None:
    """Have `hooks.evaluate` store each network that scores higher than all before, as `best_SPLIT.pt` in `run`.

    The file says on which split it was selected (`extra`: `selected_on`, `mIoU`, `iteration`), as its score there is no
    estimate of anything. A resumed run goes on with the score in the file.
    """
    path, evaluate, advance = run / f"best_{split}.pt", hooks.evaluate, hooks.advance
    assert evaluate is not None
    reached, best = start, _score(path)

    def note(iteration: int) -> None:
        nonlocal reached
        reached = iteration
        advance(iteration)

    def scored(network: nn.Module) -> dict[str, float]:
        nonlocal best
        scalars = evaluate(network)
        score = scalars[f"{split}/mIoU"]
        if score > best:
            best = score
            save(path, network, {"selected_on": split, "mIoU": score, "iteration": reached})
        return scalars

    hooks.advance, hooks.evaluate = note, scored


def _score(path: Path) -> float:
    if not path.exists():
        return -math.inf
    try:
        score = read_segmentor_file(path)["extra"]["mIoU"]
    except (InputError, KeyError, TypeError):
        return -math.inf
    return float(score) if isinstance(score, (int, float)) else -math.inf
