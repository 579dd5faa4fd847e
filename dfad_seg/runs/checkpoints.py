"""Checkpoints of a run: whole files with checksums; a damaged one costs the way back to an older one, and no more."""

import re
from pathlib import Path
from typing import Any

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_torch
from dfad_seg.common.tensors import read_tensors

FORMAT, VERSION = "dfad_seg/checkpoint", 1
_NAME = re.compile(r"iteration_\d{1,12}\.pt")


def checkpoints(run: str | Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    found = (Path(run) / "checkpoints").glob("iteration_*.pt")
    return sorted(path for path in found if _NAME.fullmatch(path.name))


def checkpoint_iteration(path: Path) -> int:
    """The iteration after which a checkpoint was saved, by its name."""
    return int(path.stem.rpartition("_")[2])


def write_checkpoint(run: Path, state: dict[str, Any], keep: int) -> Path:
    """Write `checkpoints/iteration_N.pt` whole, then drop all but the newest `keep`."""
    target = run / "checkpoints" / f"iteration_{state['iteration']:08d}.pt"
    write_torch(target, {"format": FORMAT, "version": VERSION, **state})
    for old in checkpoints(run)[:-keep]:
        old.unlink()
    return target


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU; nothing in it can run code, and every byte is what was written."""
    path = Path(path)
    state = read_tensors(path, "the checkpoint")
    keys = ("format", "version", "iteration", "networks")
    head: list[Any] = [state.get(key) for key in keys] if isinstance(state, dict) else []
    if [*map(type, head)] != [str, int, int, dict] or head[:2] != [FORMAT, VERSION] or head[2] < 0:
        raise InputError(f"{path} is no resumable checkpoint of this version. Those are in checkpoints/ of a run.")
    if _NAME.fullmatch(path.name) and checkpoint_iteration(path) != head[2]:
        raise InputError(f"the checkpoint {path} is not what its name says: it is of iteration {head[2]}.")
    return dict(state)


def newest_whole(run: str | Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The state of the newest checkpoint that is whole, and what was wrong with newer ones; None if there is none."""
    faults: list[str] = []
    for path in reversed(checkpoints(run)):
        try:
            return read_checkpoint(path), faults
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError(f"none of the checkpoints in {run} is whole: {faults[0]} Start anew in another --work-dir.")
    return None, []
