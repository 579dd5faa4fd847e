"""A config becomes a run: from the command to the student's file, read from top to bottom."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from dfad_seg.common.errors import Diverged, InputError, Interrupted
from dfad_seg.common.progress import ProgressReport
from dfad_seg.config import Config, dump_config, load_config
from dfad_seg.distill import DataFree, Supervised, WithData, distil, train_with_data
from dfad_seg.recipes.build import Experiment, build_evaluate, build_experiment, training_batches
from dfad_seg.recipes.cutting import start_of
from dfad_seg.recipes.device import explained, say, torch_settings
from dfad_seg.recipes.finishing import Finished, refresh_report, start_report
from dfad_seg.recipes.lengths import describe, with_largest_batch, with_minutes
from dfad_seg.recipes.peers import together
from dfad_seg.recipes.provenance import command_line, device_name, provenance, real_images, student_steps
from dfad_seg.recipes.reporting import WARM_UP, StopSignals, build_hooks, profiled
from dfad_seg.recipes.resuming import check_begun_with, decided_precision, identity_of, open_run, state_to_resume
from dfad_seg.recipes.transfer import transfer_images
from dfad_seg.runs import START_FILE, RunDirectory, checkpoints
from dfad_seg.runs.directory import check_folder
from dfad_seg.runs.lock import refuse_held
from dfad_seg.segmentors import Segmentor, optimize_for_distillation, save_segmentor, state_hash

BESIDE = 3
"""Student steps that take about as long as the rest of an iteration of the game."""
TITLES = {"supervised": "training the", "distill_with_data": "distilling with data the"}


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
        work_dir: its run directory; must be absent or empty unless resuming.
        resume: None for a new run; `"latest"` for the newest checkpoint of `work_dir`; a checkpoint's path; or
            `"auto"` for the newest checkpoint if there is a run, and a new run if not.
        command: what to note in the provenance.
        profile: iterations to profile; 0: none. The trace is `profile.json` in the run directory.

    Raises:
        InputError: anything wrong with config, files or folder. What can be known before training is found before
            anything is written, and a new run that fails before its first checkpoint leaves nothing behind. Also
            faults of the machine: no memory, no space, another run in the folder.
        Interrupted: Ctrl-C or SIGTERM; the run has been saved and can be resumed.
        Diverged: training went wrong; the last checkpoint is from before, and its network is in
            `last_good_student.pt` (or `last_good_teacher.pt`).
    """
    if profile < 0 or (profile and config.iterations <= WARM_UP):
        raise InputError(f"--profile {profile}: it begins after {WARM_UP} of {config.iterations} iterations.")
    work_dir = Path(work_dir)
    if resume == "auto":
        resume = "latest" if (work_dir / "config.yaml").exists() else None
    # What several processes would find alike, before they meet: all of them end alike.
    check_folder(work_dir, dump_config(config), resume=resume is not None)
    refuse_held(work_dir)
    decided = decided_precision(work_dir) if resume is not None else None
    with torch_settings(config), together(config, decided) as fabric, _faults(config, work_dir):
        began = time.monotonic()
        transfer = transfer_images(config)
        experiment = build_experiment(config, fabric.device, start_of(work_dir, resume))
        teacher_sha256 = None if experiment.teacher is None else state_hash(experiment.teacher)
        identity, images = identity_of(config, teacher_sha256), real_images(config)
        if resume is not None:
            check_begun_with(work_dir, teacher_sha256, images)
        state = state_to_resume(work_dir, resume, identity)
        signals = StopSignals()
        evaluate = build_evaluate(config, fabric, experiment.info)
        batches: Any = None if config.data_free else training_batches(config, fabric)
        run = None
        if fabric.is_global_zero:
            facts = {"device": device_name(fabric), "precision": fabric.strategy.precision.precision}
            spent = time.monotonic() - began
            run = open_run(work_dir, config, state, resume is not None, **facts, command=command, spent=spent)
        with _ending_well(experiment, work_dir, run, new=resume is None):
            if run is not None:
                if not (work_dir / "provenance.json").exists():
                    if config.cuts:
                        save_network(experiment, work_dir / START_FILE, experiment.trained)
                    run.write_provenance(provenance(experiment, fabric=fabric, command=command, images=images))
                start_report(work_dir, config, experiment.networks(experiment.trained), device_name(fabric))
            fabric.barrier()
            done = 0 if state is None else state["iteration"]
            title = f"{TITLES.get(config.method, 'distilling without data the')} {config.trained_role}"
            costs = [BESIDE + sum(steps) for steps in student_steps(config)]
            progress = ProgressReport(title, config.iterations, start=done, costs=costs)
            profiling = profiled(work_dir / "profile.json", 0 if run is None else profile, progress.advance_to)
            with progress, signals, profiling as advance:
                hooks = build_hooks(
                    config,
                    run=run,
                    identity=identity,
                    progress=progress,
                    advance=advance,
                    evaluate=evaluate,
                    stop_requested=signals,
                    info=experiment.info,
                )
                trained = experiment.trained
                optimize_for_distillation(trained, config.image_size, trainable=True)
                losses = experiment.losses
                if isinstance(config, DataFree):
                    teacher, generator = experiment.fast_teacher(), experiment.generator
                    assert generator is not None
                    kept = distil(
                        teacher, trained, generator, config, losses=losses, transfer=transfer,
                        fabric=fabric, state=state, hooks=hooks,
                    )  # fmt: skip
                else:
                    assert isinstance(config, (Supervised, WithData))
                    kept = train_with_data(
                        trained, batches, config, teacher=experiment.fast_teacher() if losses else None, losses=losses,
                        fabric=fabric, state=state, hooks=hooks,
                    )  # fmt: skip
                if run is not None:
                    # Signals are still put off: in the midst of writing one can come out as any error of a library.
                    save_network(experiment, work_dir / f"{config.trained_role}.pt", kept)
                    (work_dir / f"last_good_{config.trained_role}.pt").unlink(missing_ok=True)  # of an earlier part
            if signals():
                raise Interrupted(config.iterations, signals())
        fabric.barrier()
        if run is not None:  # the other processes need not wait for this
            Finished(work_dir, experiment, experiment.networks(kept), fabric).report()
    return work_dir / f"{config.trained_role}.pt"


def train_from_arguments(
    *,
    config: str,
    work_dir: str | None,
    resume: str | None,
    cfg_options: Sequence[str],
    minutes: float | None,
    dry_run: bool,
    auto_batch: bool,
    profile: int,
    **keys: Any,
) -> None:
    """`dfad-seg train`; `keys` are keys of the config, None where they are not given."""
    overrides = [f"{key}={value}" for key, value in keys.items() if value is not None]
    settings = load_config(config, [*cfg_options, *overrides])
    folder = Path(work_dir or f"runs/{Path(config).stem}")
    kept = folder / "config.yaml"
    begun = load_config(kept) if resume is not None and kept.exists() else None
    if auto_batch:
        settings = with_largest_batch(settings, begun)
    if minutes is not None:
        whole, settings = settings, with_minutes(settings, minutes, begun)
        say(f"{minutes:g} minutes: iterations {settings.iterations}, where the config has {whole.iterations}")
    if dry_run:
        print(describe(settings), end="")
    else:
        path = train(settings, folder, resume=resume, command=command_line(), profile=profile)
        say(f"trained network: {path}")


@contextmanager
def _ending_well(experiment: Experiment, work_dir: Path, run: RunDirectory | None, *, new: bool) -> Iterator[None]:
    """However the training inside ends, the run directory is whole, closed, and says so in its report."""
    try:
        yield
    except Interrupted as stop:
        stop.where = str(work_dir)
        raise
    except Diverged as error:
        if run is not None and error.kept is not None:
            file = work_dir / f"last_good_{experiment.config.trained_role}.pt"
            save_network(experiment, file, error.kept, {"iteration": error.iteration, "stopped": str(error)})
        raise
    except (InputError, OSError, RuntimeError, MemoryError):
        if run is not None and new and not checkpoints(work_dir):
            run.discard()
        raise
    finally:
        if run is not None:
            run.close()
            if (work_dir / "config.yaml").exists():
                refresh_report(work_dir)


def save_network(experiment: Experiment, path: Path, kept: nn.Module, extra: dict[str, Any] | None = None) -> None:
    """Write a trained network with the names of its classes, where the data set or the teacher knows them."""
    info, teacher = experiment.info, experiment.teacher
    assert isinstance(kept, Segmentor)
    unnamed = (None, None) if teacher is None else (teacher.classes, teacher.palette)
    classes, palette = (info.classes, info.palette) if info.named else unnamed
    save_segmentor(path, kept, classes=classes, palette=palette, extra=extra)


def _faults(config: Config, work_dir: Path) -> Any:
    height, width = config.image_size
    lower = "Lower batch_size or image_size"
    if config.data_free:
        lower += ", or find the batch with --auto-batch"
    lower += ": another experiment, for another --work-dir"
    then = f" What was saved in {work_dir} is whole: repeat the command, with --resume if there is a checkpoint."
    return explained(batch=f"batch_size {config.batch_size} at {height}x{width}", advice=lower, then=then)
