"""A config becomes a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators import CUDAAccelerator
from torch import nn

from dfad_seg.common.errors import Diverged, InputError, Interrupted
from dfad_seg.config import Config, dump_config
from dfad_seg.distill import (
    Hooks,
    TrainingSettings,
    distil_data_free,
    distil_with_data,
    train_supervised,
)
from dfad_seg.objectives import label_loss
from dfad_seg.recipes.build import (
    build_evaluate,
    build_interpolation,
    game_settings,
    training_batches,
)
from dfad_seg.recipes.experiment import Experiment, build_experiment
from dfad_seg.recipes.faults import explained
from dfad_seg.recipes.finishing import Finished, finish_report, refresh_report, start_report
from dfad_seg.recipes.optimizers import build_optimizer, schedule_of
from dfad_seg.recipes.precision import resolve_precision
from dfad_seg.recipes.profiling import IterationProfile
from dfad_seg.recipes.provenance import device_name, provenance
from dfad_seg.recipes.reporting import StopSignals, build_hooks
from dfad_seg.recipes.resuming import decided_precision, identity_of, nothing_learnt, open_run, state_to_resume
from dfad_seg.runs import ProgressReport, RunDirectory
from dfad_seg.runs.directory import check_folder
from dfad_seg.runs.lock import refuse_held
from dfad_seg.runs.loggers import check_loggers
from dfad_seg.segmentors import Segmentor, optimize_for_distillation, save_segmentor, state_hash


def train(
    config: Config,
    work_dir: str | Path,
    *,
    resume: str | Path | None = None,
    command: str = "",
    profile: int = 0,
) -> Path:
    """Run one experiment in `work_dir` and return the path of the trained network's file.

    Args:
        config: the experiment.
        work_dir: its run directory; must be absent or empty unless resuming.
        resume: None for a new run; `"latest"` for the newest checkpoint of `work_dir`; a checkpoint's path; or
            `"auto"` for the newest checkpoint if there is a run, and a new run if not.
        command: what to note in the provenance.
        profile: iterations to profile; 0: none. The trace is `profile.json` in the run directory, see
            `IterationProfile`.

    Raises:
        InputError: anything wrong with config, files or folder. What can be known before training is found before
            anything is written, and a new run that fails before its first checkpoint leaves nothing behind. Also
            faults of the machine: no memory, no space, another run in the folder.
        Interrupted: Ctrl-C or SIGTERM; the run has been saved and can be resumed.
        Diverged: training went wrong; the last checkpoint is from before, and its network
            is in `last_good_student.pt` (or `last_good_teacher.pt`).
    """
    work_dir = Path(work_dir)
    if resume == "auto":
        resume = "latest" if (work_dir / "config.yaml").exists() else None
    # Before the processes meet: all of them find the same fault and end alike.
    check_folder(work_dir, dump_config(config), resume=resume is not None)
    check_loggers(config.loggers)
    refuse_held(work_dir)
    height, width = config.image_size
    lower = "Lower batch_size or image_size"
    if config.data_free:
        lower += ", raise accumulate, or find the batch with --auto-batch"
    with (
        _torch_settings(config),
        explained(
            batch=f"batch_size {config.batch_size} at {height}x{width}",
            advice=lower,
            then=f" What was saved in {work_dir} is whole: repeat the command, with --resume if there is a checkpoint.",
        ),
    ):
        fabric = _fabric(config, decided=decided_precision(work_dir) if resume is not None else None)
        fabric.launch()
        return _train(config, work_dir, fabric, resume, command, profile)


def _train(
    config: Config, work_dir: Path, fabric: Fabric, resume: str | Path | None, command: str, profile: int
) -> Path:
    experiment = build_experiment(config)
    identity = identity_of(config, None if experiment.teacher is None else state_hash(experiment.teacher))
    state = state_to_resume(work_dir, resume, identity)
    evaluate = build_evaluate(config, fabric, experiment.info)
    batches_from = None if config.data_free else training_batches(config, fabric)

    run = None
    if fabric.is_global_zero:
        device = device_name(fabric)
        run = open_run(work_dir, config, state, resume is not None, device=device, command=command)
    start = 0 if state is None else state["iteration"]
    progress = ProgressReport(_title(config), config.iterations, start=start, enabled=run is not None)
    stop_requested = StopSignals()
    profiler: IterationProfile | None = None
    try:
        if run is not None and not (run.path / "provenance.json").exists():
            record = provenance(
                config,
                fabric=fabric,
                teacher=experiment.teacher,
                trained=experiment.trained,
                objective=experiment.objective,
                command=command,
            )
            run.write_provenance(record)
        if run is not None:
            start_report(run.path, config, experiment.networks(experiment.trained), device_name(fabric))
        fabric.barrier()
        with progress, stop_requested:
            hooks = build_hooks(
                config,
                run=run,
                identity=identity,
                progress=progress,
                evaluate=evaluate,
                stop_requested=stop_requested,
                info=experiment.info,
            )
            if run is not None and profile:
                profiler = IterationProfile(run.path / "profile.json", profile)
                hooks.advance = _both(hooks.advance, profiler)
            kept = run_method(experiment, fabric, batches_from, state, hooks)
            if run is not None:
                # Signals are still put off: in the midst of drawing one can come out as any error of a library.
                _finish(run, experiment, kept)
        if stop_requested():
            raise Interrupted(config.iterations)
    except Interrupted as stop:
        stop.where = str(work_dir)
        stop.signal_number = stop_requested.number or stop.signal_number
        raise
    except Diverged as error:
        if run is not None and error.kept is not None:
            extra = {"iteration": error.iteration, "stopped": str(error)}
            _save_network(experiment, run.path / f"last_good_{config.trained_role}.pt", error.kept, extra)
        raise
    except (InputError, OSError, RuntimeError, MemoryError):
        if run is not None and resume is None and nothing_learnt(work_dir):
            run.discard()
        raise
    finally:
        if profiler is not None:
            profiler.finish()
        if run is not None:
            run.close()
            if (run.path / "config.yaml").exists():
                refresh_report(run.path)
    fabric.barrier()
    if run is not None:
        # The other processes need not wait for this.
        own_precision = config.evaluation is not None and config.evaluation.precision != "auto"
        autocast = None if own_precision else fabric.autocast  # as in the evaluations on the way
        networks = experiment.networks(kept)
        finished = Finished(
            run.path,
            config,
            experiment.info,
            networks,
            fabric.device,
            autocast,
            last=experiment.trained if config.ema_decay else None,
            generator=experiment.generator if config.method == "dfad" else None,
        )
        finish_report(finished)
    return work_dir / f"{config.trained_role}.pt"


def play_one_iteration(config: Config) -> None:
    """Train for one iteration and keep nothing: what is wanted is what it costs."""
    try:
        train_in_process(build_experiment(config), Hooks(stop_requested=lambda: True))
    except Interrupted:
        pass


def train_in_process(experiment: Experiment, hooks: Hooks) -> nn.Module:
    """Play a data-free experiment here and now, without a run directory; returns the network to keep."""
    with _torch_settings(experiment.config):
        fabric = _fabric(experiment.config)
        fabric.launch()
        return run_method(experiment, fabric, None, None, hooks)


def run_method(
    experiment: Experiment, fabric: Fabric, batches_from: Any, state: dict[str, Any] | None, hooks: Hooks
) -> nn.Module:
    """Train as the config's method says, from a saved state or from the start; returns the network to keep."""
    config, trained, teacher = experiment.config, experiment.trained, experiment.teacher
    schedule = schedule_of(config.schedule, config.iterations)
    features = experiment.features
    if teacher is not None:
        teacher.to(fabric.device)  # the loaded one: priors hold parts of it, while the loop may get a rearranged copy
    # The connectors of the regularisers learn with the student, though they are no part of it.
    learning = trained if features is None else nn.ModuleList([trained, features.connectors])
    optimizer = build_optimizer(config.student_optimizer, learning)
    if config.optimize:
        optimize_for_distillation(trained, config.image_size, trainable=True)
        if isinstance(teacher, Segmentor):
            # What reads hidden layers reads those of the teacher that it was built with.
            watched = features is not None or (
                experiment.objective is not None and experiment.objective.watches_teacher
            )
            fast = optimize_for_distillation(teacher, config.image_size, trainable=False, fold_batch_norm=not watched)
            assert isinstance(fast, Segmentor)
            teacher = fast
    with_data = TrainingSettings(
        iterations=config.iterations,
        clip_norm=config.clip_norm,
        ema_decay=config.ema_decay,
        answer_pooling=config.answer_pooling,
        seed=config.seed,
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
            adjustment=experiment.adjustment,
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
        settings=game_settings(config),
        interpolation=build_interpolation(config),
        features=features,
        adjustment=experiment.adjustment,
        state=state,
        hooks=hooks,
    )


@contextmanager
def _torch_settings(config: Config) -> Iterator[None]:
    """Process-wide settings of torch, undone afterwards."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for, before CUDA starts
        torch.use_deterministic_algorithms(True)
    # Denormal numbers cost a CPU dozens of cycles each and mean nothing here.
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_flush_denormal(False)


def _fabric(config: Config, decided: str | None = None) -> Fabric:
    if config.device == "cuda" and not CUDAAccelerator.is_available():
        raise InputError("device is cuda, and no CUDA device can be used here. Use --device cpu or auto.")
    cuda = config.device != "cpu" and CUDAAccelerator.is_available()
    if cuda and config.devices > torch.cuda.device_count():
        raise InputError(
            f"devices is {config.devices}, and this machine has {torch.cuda.device_count()}. Lower --devices."
        )
    return Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy="ddp" if config.devices * config.num_nodes > 1 else "auto",
        precision=resolve_precision(config, cuda=cuda, decided=decided),  # type: ignore[arg-type]
    )


def _both(advance: Callable[[int], None], profiler: IterationProfile) -> Callable[[int], None]:
    def then(iteration: int) -> None:
        advance(iteration)
        profiler.advance()

    return then


def _title(config: Config) -> str:
    return {"supervised": f"training the {config.trained_role}", "distill_with_data": "distilling with data"}.get(
        config.method, "distilling without data"
    )


def _finish(run: RunDirectory, experiment: Experiment, kept: nn.Module) -> None:
    _save_network(experiment, run.path / f"{experiment.config.trained_role}.pt", kept)
    (run.path / f"last_good_{experiment.config.trained_role}.pt").unlink(missing_ok=True)  # of an earlier part


def _save_network(experiment: Experiment, path: Path, kept: nn.Module, extra: dict[str, Any] | None = None) -> None:
    info = experiment.info
    assert isinstance(kept, Segmentor)
    # Without a data set the names may still be known to the teacher; placeholders are not worth keeping.
    teacher = experiment.teacher if isinstance(experiment.teacher, Segmentor) else None
    unnamed = (None, None) if teacher is None else (teacher.classes, teacher.palette)
    classes, palette = (info.classes, info.palette) if info.named else unnamed
    save_segmentor(path, kept, classes=classes, palette=palette, extra=extra)
