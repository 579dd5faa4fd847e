"""Where a run goes on: its folder, the checkpoint to take up, and what was decided when it began."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dfad_seg.common.errors import InputError
from dfad_seg.config import Config, dump_config
from dfad_seg.runs import RunDirectory, checkpoints, read_checkpoint


def decided_precision(work_dir: Path) -> str | None:
    """What a run that is resumed began with, as it may have been measured then."""
    try:
        record = json.loads((work_dir / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    decided = record.get("precision") if isinstance(record, dict) else None
    return decided if decided in ("32-true", "bf16-mixed") else None


def state_to_resume(work_dir: Path, resume: str | Path | None, identity: str) -> dict[str, Any] | None:
    """The content of the checkpoint that `resume` asks for (see `train`), or None to begin.

    Raises:
        InputError: it cannot be read, or is of another experiment.
    """
    if resume is None:
        return None
    path: Path | None = Path(resume)
    if str(resume) == "latest":
        path = next(reversed(checkpoints(work_dir)), None)
    if path is None:
        return None
    state = read_checkpoint(path)
    if state.get("experiment") != identity:
        raise InputError(
            f"the checkpoint {path} is of another experiment: its config or its teacher's weights are not those "
            "of this run. Resume with what it was started with, or start anew in another --work-dir."
        )
    return state


def open_run(work_dir: Path, config: Config, state: dict[str, Any] | None, resume: bool) -> RunDirectory:
    """The run directory, new or taken up after the iteration of `state`; locked."""
    text = dump_config(config)
    if resume and (work_dir / "config.yaml").exists():
        # Without a checkpoint the run had not come to its first one, and begins again.
        return RunDirectory.resume(
            work_dir,
            text,
            step=0 if state is None else state["iteration"],
            keep_checkpoints=config.keep_checkpoints,
            evaluation_pending=state is not None and bool(state.get("evaluation_pending")),
            loggers=config.loggers,
        )
    return RunDirectory.start(work_dir, text, keep_checkpoints=config.keep_checkpoints, loggers=config.loggers)


def nothing_learnt(work_dir: Path) -> bool:
    """Whether a run has no checkpoint beyond its very start."""
    return not any(path for path in checkpoints(work_dir) if path.name != "iteration_00000000.pt")
