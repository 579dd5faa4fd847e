"""Runs that are parts of a longer programme, which can be repeated: what is finished stays, what is not goes on."""

from __future__ import annotations

from pathlib import Path

from dfad_seg.common.errors import InputError
from dfad_seg.config import Config, dump_config
from dfad_seg.recipes.run import train
from dfad_seg.runs import Run
from dfad_seg.runs.directory import check_folder
from dfad_seg.segmentors import file_sha256


def train_once(config: Config, run: str | Path, *, command: str) -> Path:
    """The trained network's file of a run; trains, or goes on training, if it is not there yet.

    Raises:
        InputError: the folder holds the run of another config or of another teacher.
        Interrupted, Diverged: as `train`.
    """
    run = Path(run)
    file = run / f"{config.trained_role}.pt"
    if not file.exists():
        return train(config, run, resume="auto", command=command)
    check_folder(run, dump_config(config), resume=True)
    record = Run(run).provenance
    teacher = None if record is None else record.teacher
    if teacher is not None and teacher.checkpoint and teacher.file_sha256 != file_sha256(teacher.checkpoint):
        raise InputError(f"{run} was distilled from another teacher. Delete that folder to run the stage again.")
    print(f"{run}: finished earlier, kept. Delete the folder to run it again.", flush=True)
    return file
