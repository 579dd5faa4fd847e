"""A config becomes a run."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators import CUDAAccelerator
from torch import Tensor, nn

from dfad_seg.config import Config, dump_config
from dfad_seg.datasets import MetaInfo
from dfad_seg.distill import (
    GameSettings,
    Hooks,
    Interrupted,
    TrainingSettings,
    distil_data_free,
    distil_with_data,
    train_supervised,
)
from dfad_seg.distill.seeds import derived_seed
from dfad_seg.errors import InputError
from dfad_seg.generators import ImageGenerator
from dfad_seg.objectives import Discrepancy, GeneratorObjective, label_loss, weighted_discrepancy
from dfad_seg.pipeline.build import (
    build_evaluate,
    build_game,
    build_network,
    build_optimizer,
    build_teacher,
    meta_info,
    schedule_of,
    to_layout,
    training_batches,
)
from dfad_seg.pipeline.provenance import provenance
from dfad_seg.runs import ProgressReport, RunDirectory, checkpoints, read_checkpoint, read_metrics
from dfad_seg.runs.pictures import curves, generated_grid
from dfad_seg.segmentors import Segmentor, save_segmentor


@dataclass
class Experiment:
    """The networks of a config, built and loaded, with nothing trained yet."""

    config: Config
    info: MetaInfo
    teacher: Segmentor | None
    """Frozen; None for supervised training."""
    trained: Segmentor
    generator: ImageGenerator | None = None
    """For data-free training only."""
    objective: GeneratorObjective | None = None
    """None for the random-noise control, whose generator is not trained."""
    student_loss: Discrepancy | None = None
    """None for supervised training."""


def build_experiment(config: Config) -> Experiment:
    """Build teacher, trained network and generator; the same seed gives the same weights."""
    info = meta_info(config)
    torch.manual_seed(derived_seed(config.seed, 0, 0, "initialisation"))
    section = config.teacher if config.trained_role == "teacher" else config.student
    assert section is not None
    trained = to_layout(config, build_network(section, config.trained_role, info.num_classes))
    if config.method == "supervised":
        return Experiment(config, info, None, trained)
    teacher = to_layout(config, build_teacher(config, info.num_classes))
    experiment = Experiment(config, info, teacher, trained, student_loss=weighted_discrepancy(config.student_loss))
    if config.data_free:
        generator, experiment.objective = build_game(config, teacher, info.num_classes)
        experiment.generator = to_layout(config, generator)
    return experiment


def train(config: Config, work_dir: str | Path, *, resume: str | Path | None = None, command: str = "") -> Path:
    """Run one experiment in `work_dir` and return the path of the trained network's file.

    Args:
        config: the experiment.
        work_dir: its run directory; must be absent or empty unless resuming.
        resume: a checkpoint, or `"latest"` for the newest of `work_dir` (from the start if there is none).
        command: what to note in the provenance.

    Raises:
        InputError: anything wrong with config, files or folder; found before anything is written.
        Interrupted: Ctrl-C or SIGTERM; the run has been saved and can be resumed.
    """
    work_dir = Path(work_dir)
    fabric = _fabric(config)
    fabric.launch()
    state = _state_to_resume(work_dir, resume)
    experiment = build_experiment(config)
    evaluate = build_evaluate(config, fabric, experiment.info)
    batches_from = None if config.data_free else training_batches(config, fabric)

    run = None
    if fabric.is_global_zero:
        run = _open_run(work_dir, config, state, resume is not None)
        if not (run.path / "provenance.json").exists():
            run.write_json(
                "provenance.json",
                provenance(
                    config, fabric=fabric, teacher=experiment.teacher, trained=experiment.trained, command=command
                ),
            )
    fabric.barrier()
    start = 0 if state is None else state["iteration"]
    progress = ProgressReport(_title(config), config.iterations, start=start, enabled=run is not None)
    stop_requested = _StopSignals()
    try:
        with progress, stop_requested:
            hooks = _hooks(config, run, progress, evaluate, stop_requested, experiment.info)
            kept = _run_method(experiment, fabric, batches_from, state, hooks)
        if run is not None:
            _finish(run, experiment, kept)
    except Interrupted as stop:
        stop.signal_number = stop_requested.number
        raise
    finally:
        if run is not None:
            run.close()
    fabric.barrier()
    return work_dir / f"{config.trained_role}.pt"


def _run_method(
    experiment: Experiment, fabric: Fabric, batches_from: Any, state: dict[str, Any] | None, hooks: Hooks
) -> nn.Module:
    config, trained, teacher = experiment.config, experiment.trained, experiment.teacher
    schedule = schedule_of(config.schedule, config.iterations)
    optimizer = build_optimizer(config.student_optimizer, trained)
    with_data = TrainingSettings(
        iterations=config.iterations, clip_norm=config.clip_norm, ema_decay=config.ema_decay, seed=config.seed
    )
    if config.method == "supervised":
        return train_supervised(
            fabric=fabric,
            network=trained,
            batches_from=batches_from,
            optimizer=optimizer,
            loss_fn=label_loss(
                gamma=config.focal_gamma,
                class_weights=config.class_weights,
                ignore_index=experiment.info.ignore_index,
            ),
            schedule=schedule,
            settings=with_data,
            state=state,
            hooks=hooks,
        )
    student_loss = experiment.student_loss
    assert teacher is not None and student_loss is not None
    if config.method == "distill_with_data":
        return distil_with_data(
            fabric=fabric,
            teacher=teacher,
            student=trained,
            batches_from=batches_from,
            optimizer=optimizer,
            student_loss=student_loss,
            schedule=schedule,
            settings=with_data,
            state=state,
            hooks=hooks,
        )
    generator = experiment.generator
    assert generator is not None
    objective = experiment.objective
    return distil_data_free(
        fabric=fabric,
        teacher=teacher,
        student=trained,
        generator=generator,
        student_optimizer=optimizer,
        generator_optimizer=None if objective is None else build_optimizer(config.generator_optimizer, generator),
        student_loss=student_loss,
        objective=objective,
        schedule=schedule,
        settings=GameSettings(
            iterations=config.iterations,
            student_steps=config.student_steps,
            batch_size=config.batch_size,
            image_size=config.image_size,
            student_norm=config.student_norm,
            clip_norm=config.clip_norm,
            ema_decay=config.ema_decay,
            recalibrate_batches=config.recalibrate_batches,
            seed=config.seed,
        ),
        state=state,
        hooks=hooks,
    )


def _fabric(config: Config) -> Fabric:
    if config.device == "cuda" and not CUDAAccelerator.is_available():
        raise InputError("device is cuda, and no CUDA device can be used here. Use --device cpu or auto.")
    if config.deterministic:
        torch.use_deterministic_algorithms(True)
    # Denormal numbers cost a CPU dozens of cycles each and mean nothing here.
    torch.set_flush_denormal(True)
    return Fabric(
        accelerator=config.device,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy="ddp" if config.devices * config.num_nodes > 1 else "auto",
        precision=config.precision,
    )


def _state_to_resume(work_dir: Path, resume: str | Path | None) -> dict[str, Any] | None:
    if resume is None:
        return None
    if str(resume) != "latest":
        return read_checkpoint(resume)
    found = checkpoints(work_dir)
    return read_checkpoint(found[-1]) if found else None


def _open_run(work_dir: Path, config: Config, state: dict[str, Any] | None, resume: bool) -> RunDirectory:
    text = dump_config(config)
    if resume and (work_dir / "config.yaml").exists():
        # Without a checkpoint the run had not come to its first one, and begins again.
        step = 0 if state is None else state["iteration"]
        return RunDirectory.resume(work_dir, text, step=step, keep_checkpoints=config.keep_checkpoints)
    return RunDirectory.start(work_dir, text, keep_checkpoints=config.keep_checkpoints)


def _title(config: Config) -> str:
    return {"supervised": f"training the {config.trained_role}", "distill_with_data": "distilling with data"}.get(
        config.method, "distilling without data"
    )


def _hooks(
    config: Config,
    run: RunDirectory | None,
    progress: ProgressReport,
    evaluate: Any,
    stop_requested: Any,
    info: MetaInfo,
) -> Hooks:
    latest: dict[str, float] = {}

    def log(step: int, scalars: dict[str, float]) -> None:
        if run is None:
            return
        run.log(step, scalars)
        latest.update(scalars)
        progress.note(", ".join(f"{_short(k)} {v:.3f}" for k, v in latest.items() if _short(k)))

    def preview(step: int, images: Tensor, teacher_labels: Tensor, student_labels: Tensor) -> None:
        if run is not None:
            generated_grid(
                run.path / "pictures" / f"generated_{step:08d}.png",
                images,
                teacher_labels,
                student_labels,
                palette=info.palette,
                classes=info.classes,
                title=f"generated images after {step} iterations",
            )

    def save(step: int, state: dict[str, Any]) -> None:
        if run is not None:
            run.save_checkpoint(state)

    return Hooks(
        log=log,
        evaluate=evaluate,
        save=save,
        preview=preview,
        advance=progress.advance_to,
        stop_requested=stop_requested,
        log_every=config.log_every,
        evaluate_every=0 if config.evaluation is None else config.evaluation.every,
        save_every=config.save_every,
        preview_every=config.preview_every,
    )


def _short(name: str) -> str:
    group, _, rest = name.partition("/")
    if rest == "mIoU":
        return f"{group} mIoU"
    if rest.endswith("loss") and group == "train":
        return rest.replace("_", " ")
    return "agreement" if rest == "student_agreement" else ""


def _finish(run: RunDirectory, experiment: Experiment, kept: nn.Module) -> None:
    config, info = experiment.config, experiment.info
    assert isinstance(kept, Segmentor)
    save_segmentor(run.path / f"{config.trained_role}.pt", kept, classes=info.classes, palette=info.palette)
    curves(run.path / "pictures" / "curves.png", read_metrics(run.path))


class _StopSignals:
    """Ctrl-C and SIGTERM ask the loop to save and stop; a second one stops at once."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self) -> bool:
        return self.number is not None

    def __enter__(self) -> _StopSignals:
        self._previous = {n: signal.signal(n, self._remember) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number
