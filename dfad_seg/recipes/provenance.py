"""Where a run's result comes from."""

import hashlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from dfad_seg.common.environment import PACKAGES, cpu_name, version
from dfad_seg.common.reading import file_hash
from dfad_seg.config import Config, RealImages
from dfad_seg.datasets.listing import list_files
from dfad_seg.distill import DataFree, build_schedule
from dfad_seg.recipes.build import Experiment, open_dataset
from dfad_seg.recipes.resuming import now
from dfad_seg.recipes.sources import weights_of
from dfad_seg.recipes.transfer import SUFFIXES
from dfad_seg.runs.records import Provenance, Teacher, Use
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
