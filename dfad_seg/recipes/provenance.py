"""Where a run's result comes from; and where a run goes on: its folder, the checkpoint to take up, and what was decided
when it began."""

import dataclasses
import hashlib
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from dfad_seg.common.environment import PACKAGES, cpu_name, version
from dfad_seg.common.errors import InputError
from dfad_seg.common.reading import file_hash, parse_yaml
from dfad_seg.config import Config, RealImages, dump_config
from dfad_seg.datasets.folders import list_files
from dfad_seg.distill import DataFree, build_schedule
from dfad_seg.recipes.build import Experiment, open_dataset
from dfad_seg.recipes.samples import SUFFIXES
from dfad_seg.recipes.sources import weights_of
from dfad_seg.runs import Run, RunDirectory, read_checkpoint
from dfad_seg.runs.checkpoints import newest_whole
from dfad_seg.runs.records import Provenance, Resumption, Teacher, Use
from dfad_seg.runs.run import RESUMED_WITH, config_changes, experiment_values
from dfad_seg.segmentors import count_parameters, state_hash


def real_images(config: Config) -> tuple[Use, ...]:
    """What a run reads of real images, listed; raises InputError as the data set does."""

    def listed(names: Iterable[str]) -> str:
        return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()

    uses: list[Use] = []
    if config.dataset is not None:
        options = config.dataset.values()
        source: dict[str, Any] = {"dataset": config.dataset.name, "root": options.pop("root"), "options": options}
        splits: dict[Any, str] = {"training": config.training_data.split} if isinstance(config, RealImages) else {}
        splits |= {} if config.evaluation is None else {"evaluation": config.evaluation.split}
        for purpose, split in splits.items():
            listing = listed(open_dataset(config, split, None).names)
            uses.append(Use(**source | {"purpose": purpose, "split": split, "listing": listing}))
    if (folder := getattr(config, "transfer_images", None)) is not None:
        listing = listed(list_files(Path(folder), SUFFIXES, "transfer image"))
        uses.append(Use(purpose="training", split="all", root=folder, listing=listing))
    return tuple(uses)


def provenance(experiment: Experiment, *, fabric: Fabric, command: str, images: tuple[Use, ...]) -> Provenance:
    """The record written to `provenance.json` when a run starts; `images` are its `real_images`."""
    config, teacher = experiment.config, experiment.teacher
    return Provenance(
        command=command,
        method=config.method,
        seed=config.seed,
        started=now(),
        teacher=None if teacher is None else _teacher(config, teacher),
        trained_from=_starting_weights(config),
        batch_norm_prior_layers=_prior_layers(experiment),
        trained_parameters=count_parameters(experiment.trained),
        trained_steps=trained_steps(config),
        real_images=images,
        real_images_used_for_training=any(use.purpose == "training" for use in images),
        device=device_name(fabric),
        processes=fabric.world_size,
        precision=fabric.strategy.precision.precision,
        torch_threads=torch.get_num_threads(),
        python=platform.python_version(),
        packages={name: version(name) for name in PACKAGES},
        dfad_seg=version("dfad-seg"),
        git_commit=_git_commit(),
    )


def trained_steps(config: Config) -> int:
    """Optimiser steps of the trained network in a whole run."""
    return sum(map(sum, student_steps(config))) if config.data_free else config.iterations


def student_steps(config: Config) -> list[tuple[int, int]]:
    """The student's steps on new images and on remembered ones, in each iteration of a data-free run."""
    if not isinstance(config, DataFree):
        return []
    replay, schedule = config.replay, build_schedule(config.schedule, config.iterations)
    warmup = config.schedule.options.warmup
    again = [0 if replay is None else replay.steps_at(i, schedule, warmup) for i in range(config.iterations)]
    return [(config.student_steps, steps) for steps in again]


def _starting_weights(config: Config) -> dict[str, str]:
    """Where the trained network's weights come from, as far as they are not random."""
    section = config.teacher if config.trained_role == "teacher" else config.student
    options: dict[str, Any] = {} if section is None else section.values()
    kinds = ("checkpoint", "encoder_checkpoint", "encoder_weights", "pretrained")
    found = {name: str(options[name]) for name in kinds if options.get(name)}
    hashes = {f"{name}_sha256": file_hash(found[name]) for name in found if name.endswith("checkpoint")}
    return found | hashes


def _prior_layers(experiment: Experiment) -> tuple[str, ...] | None:
    """The teacher's layers that the BatchNorm prior looks at, for images of the config's size."""
    teacher, losses, size = experiment.teacher, experiment.losses, experiment.config.image_size
    objective = None if losses is None else losses.objective
    prior: Any = None if objective is None else objective.priors.get("batch_norm_prior", (None, 0))[0]
    if prior is None or teacher is None:
        return None
    image = torch.zeros(1, teacher.in_channels, *size, device=next(teacher.parameters()).device)
    with torch.no_grad(), prior.watch():
        teacher(image)
    return tuple(prior.used)


def _teacher(config: Config, teacher: nn.Module) -> Teacher:
    file = weights_of(config.teacher)
    return Teacher(
        checkpoint=str(file) if file.name else None,
        file_sha256=file_hash(file) if file.is_file() else None,
        state_sha256=state_hash(teacher),
        parameters=count_parameters(teacher),
    )


def device_name(fabric: Fabric) -> str:
    """What computes: the GPU's name, or the CPU's with its threads."""
    if fabric.device.type == "cuda":
        return torch.cuda.get_device_name(fabric.device)
    return f"{cpu_name()} ({torch.get_num_threads()} threads)"


def _git_commit() -> str | None:
    """The commit of the source tree this package runs from, with `-dirty` for local changes; None elsewhere."""
    folder = Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None if described.returncode == 0 else None


def command_line() -> str:
    """The command that started this process, as one would type it."""
    return shlex.join(["python", *sys.argv])


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
