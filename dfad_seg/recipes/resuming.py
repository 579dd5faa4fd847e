"""Where a run goes on: its folder, the checkpoint to take up, and what was decided when it began."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from dfad_seg.common.errors import InputError
from dfad_seg.common.reading import parse_yaml
from dfad_seg.config import Config, dump_config
from dfad_seg.runs import Run, RunDirectory, read_checkpoint
from dfad_seg.runs.checkpoints import newest_whole
from dfad_seg.runs.directory import RESUMED_WITH, config_changes, experiment_values
from dfad_seg.runs.records import Resumption, Use


def decided_precision(work_dir: Path) -> str | None:
    """What a run that is resumed began with, as it may have been measured then."""
    record = Run(work_dir).provenance
    return record.precision if record is not None and record.precision in ("32-true", "bf16-mixed") else None


def identity_of(config: Config, teacher_sha256: str | None) -> str:
    """A digest of what makes a checkpoint part of this experiment: its config and its teacher's weights."""
    values = experiment_values(parse_yaml(dump_config(config), "the config"), RESUMED_WITH)
    return hashlib.sha256(json.dumps([values, teacher_sha256], sort_keys=True).encode()).hexdigest()


def state_to_resume(work_dir: Path, resume: str | Path | None, identity: str) -> dict[str, Any] | None:
    """The content of the checkpoint that `resume` asks for (see `train`), or None to begin.

    Of `"latest"`, the newest that is whole; what is wrong with a newer one is said on stderr.
    """
    if resume is None:
        return None
    if str(resume) == "latest":
        state, faults = newest_whole(work_dir)
        for fault in faults:
            after = "the start" if state is None else f"iteration {state['iteration']}"
            print(f"warning: {fault} Going on from {after}.", file=sys.stderr, flush=True)
    else:
        state = read_checkpoint(resume)
    if state is not None and state.get("experiment") != identity:
        raise InputError(
            f"the checkpoint of iteration {state['iteration']} is of another experiment than {work_dir} and this "
            "config: its keys or its teacher's weights are not those of this run. Resume with what it was started "
            "with, or start anew in another --work-dir."
        )
    return state


def check_begun_with(work_dir: Path, teacher_sha256: str | None, images: Sequence[Use]) -> None:
    """Whether a run that is resumed has the teacher and the images with which it began, wherever they lie now."""
    record = Run(work_dir).provenance
    if record is None:
        return
    if record.teacher is not None and record.teacher.state_sha256 not in (None, teacher_sha256):
        raise InputError(
            f"the run in {work_dir} began with another teacher's weights. Name the teacher's file of then "
            "(--cfg-options teacher.checkpoint=FILE), or start anew in another --work-dir."
        )
    for before, now in zip(record.real_images, images, strict=False):
        if before.listing and before.listing != now.listing:
            raise InputError(
                f"the images for {now.purpose} in {now.root}, split '{now.split}', are not those with which the run in "
                f"{work_dir} began: their names differ. Name the folder that holds them now (--cfg-options "
                "dataset.root=FOLDER), or start anew in another --work-dir."
            )


def open_run(
    work_dir: Path,
    config: Config,
    state: dict[str, Any] | None,
    resume: bool,
    *,
    device: str = "",
    precision: str = "",
    command: str = "",
    spent: float = 0.0,
) -> RunDirectory:
    """The run directory, new or taken up after the iteration of `state`; locked. What changed goes on record."""
    text = dump_config(config)
    options: dict[str, Any] = {"keep_checkpoints": config.keep_checkpoints, "tensorboard": config.tensorboard}
    if not (resume and (work_dir / "config.yaml").exists()):
        return RunDirectory.start(work_dir, text, spent=spent, **options)
    # Without a checkpoint the run had not come to its first one, and begins again.
    iteration = 0 if state is None else state["iteration"]
    pending = state is not None and bool(state.get("evaluation_pending"))
    run = RunDirectory.resume(work_dir, text, step=iteration, evaluation_pending=pending, **options)
    before = Run(work_dir)
    record = before.provenance
    if record is not None:
        facts = {"device": (record.device, device), "torch_threads": (record.torch_threads, torch.get_num_threads())}
        facts |= {"precision": (record.precision, precision)}
        changed = config_changes(before.config, text) | {key: pair for key, pair in facts.items() if pair[0] != pair[1]}
        if changed:
            again = Resumption(iteration=iteration, started=now(), changed=changed, command=command)
            run.write_provenance(dataclasses.replace(record, resumed=(*record.resumed, again)))
    return run


def now() -> str:
    """The time, to the second, with its zone."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
