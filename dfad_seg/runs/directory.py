"""The one writer of a run directory: nothing overwritten, nothing half-written, nothing lost or doubled on resume."""

import dataclasses
import fnmatch
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dfad_seg.common.errors import InputError, some
from dfad_seg.common.files import remove_temporaries, write_json, write_text
from dfad_seg.common.reading import parse_yaml
from dfad_seg.common.values import plain
from dfad_seg.runs.checkpoints import checkpoint_iteration, checkpoints, write_checkpoint
from dfad_seg.runs.lock import LOCK, RunLock
from dfad_seg.runs.records import Provenance, Score, Summary
from dfad_seg.runs.run import Run
from dfad_seg.runs.tensorboard import TensorBoard

FREE = (
    *("device", "log_every", "save_every", "preview_every", "keep_checkpoints", "tensorboard", "report"),
    *("*num_workers", "evaluation.batch_size", "evaluation.every", "deterministic"),
    *("dataset.root", "teacher.checkpoint", "teacher.path", "student.checkpoint", "*encoder_checkpoint"),
)
"""Keys of a config that may change between the parts of a run: the experiment stays what it is. What decides whether
the teacher is the same are its weights, and not where they lie."""
RESUMED_WITH = ("precision", "transfer_images", "teacher.pretrained", "teacher.config")
"""Keys that may change in a run that is resumed, and tell two experiments apart all the same."""
START_FILE = "student_as_cut.pt"
"""A cut student before its training."""


class RunDirectory:
    """Holds a run directory, locked, while it is written to. Only the process of rank 0 should.

    Create it with `RunDirectory.start` or `RunDirectory.resume`.
    """

    def __init__(
        self, path: Path, lock: RunLock, *, step: int = 0, keep_checkpoints: int = 2, tensorboard: bool = True
    ) -> None:
        self.path = path
        self.keep_checkpoints = keep_checkpoints
        self._lock = lock
        self._started = time.monotonic() - Run(path).seconds
        self._metrics = open(path / "metrics.jsonl", "a", encoding="utf-8")
        self.tensorboard = TensorBoard(path, step, wanted=tensorboard)

    @classmethod
    def start(cls, path: str | Path, config: str, *, spent: float = 0.0, **options: Any) -> "RunDirectory":
        """A new run in an absent or empty folder, locked; raises InputError as `check_folder`.

        Seconds that were spent on it already, such as by cutting its student, count as its own. The options are
        `keep_checkpoints` and `tensorboard`, as of a config.
        """
        path = Path(path)
        check_folder(path, config, resume=False)
        absent = not path.exists()
        try:
            with _held(path) as lock:
                check_folder(path, config, resume=False)  # another run may have come and gone meanwhile
                remove_temporaries(path)
                write_text(path / "config.yaml", config)
                run = cls(path, lock, **options)
                run._started -= spent
                return run
        except BaseException:
            if absent:
                shutil.rmtree(path, ignore_errors=True)
            raise

    @classmethod
    def resume(
        cls, path: str | Path, config: str, *, step: int, evaluation_pending: bool = False, **options: Any
    ) -> "RunDirectory":
        """An existing run, to go on after `step`, locked; `evaluation_pending`: with that step's evaluation.

        Later metrics and checkpoints are dropped, as they will be made again, and so is what a killed process left
        half-written. Options and errors as of `start`.
        """
        path = Path(path)
        check_folder(path, config, resume=True)
        with _held(path) as lock:
            for folder in (path, path / "checkpoints", path / "pictures"):
                remove_temporaries(folder)
            _drop_after(path, step, evaluation_pending=evaluation_pending)
            return cls(path, lock, step=step, **options)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append one line to `metrics.jsonl` and the same scalars to TensorBoard; NaN becomes null."""
        clean = {name: (float(value) if math.isfinite(value) else None) for name, value in scalars.items()}
        self.note(step, clean)
        self.tensorboard.scalars(step, {name: value for name, value in clean.items() if value is not None})

    def note(self, step: int, values: Mapping[str, Any]) -> None:
        """Append a line to `metrics.jsonl`, as it is; one on what went wrong has `event`, `cause` and `found_at`."""
        elapsed = round(time.monotonic() - self._started, 3)
        self._metrics.write(json.dumps({"step": step, "elapsed_s": elapsed, **values}) + "\n")
        self._metrics.flush()

    def save_checkpoint(self, state: dict[str, Any]) -> Path:
        """Write `checkpoints/iteration_N.pt` whole, after all metrics so far; keep the newest few."""
        self._metrics.flush()
        os.fsync(self._metrics.fileno())
        return write_checkpoint(self.path, state, self.keep_checkpoints)

    def write_provenance(self, record: Provenance) -> None:
        """Write `provenance.json`, whole."""
        write_json(self.path / "provenance.json", plain(record))

    def discard(self) -> None:
        """Remove a run that has nothing worth keeping; the folder was absent or empty when it started."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> None:
        """Close the files and give the folder free, also where the disk takes no more."""
        try:
            self._metrics.close()
        except OSError:
            pass  # what could not be written has been reported when it was
        finally:
            self.tensorboard.close()
            self._lock.release()


def update_summary(run: str | Path, **changes: Any) -> None:
    """Write `summary.json` with other values in some of its fields; a run's first call names `role` and `iterations`.

    Raises:
        InputError: the summary that is there is none of ours.
    """
    run = Path(run)
    kept = Run(run).summary
    summary = Summary(**changes) if kept is None else dataclasses.replace(kept, **changes)
    write_json(run / "summary.json", plain(summary))


def note_score(run: str | Path, score: Score) -> None:
    """Put a score into the run's summary, in the place of an earlier one of the same network, weights and split."""
    kept = Run(run).summary
    if kept is None:
        raise InputError(f"{run} has no summary.json, so it has not begun. Train it first.")
    same = (score.network, score.weights, score.split)
    others = [other for other in kept.scores if (other.network, other.weights, other.split) != same]
    update_summary(run, scores=(*others, score))


def note_evaluation(
    file: str | Path, metrics: Mapping[str, Any], *, split: str, command: str, role: str | None = None
) -> Path | None:
    """Put the `metrics` of `Score.measured` into the summary of the finished run whose folder or network `file` is.

    `role` is the network's, `"teacher"` or `"student"`; None: the one that was trained. Returns the run; None where
    `file` is of no run, and nothing is written.
    """
    run = Path(file) if Path(file).is_dir() else Path(file).parent
    found = Run(run) if (run / "config.yaml").is_file() else None
    summary, network = (None, None) if found is None else (found.summary, found.network)
    if summary is None or network is None or Path(file) not in (run, network, run / START_FILE):
        return None
    role, weights = role or summary.role, "start" if Path(file).name == START_FILE else summary.selected
    which = {"network": role, "weights": weights if role == summary.role else "last", "split": split}
    note_score(run, Score.measured(metrics, command=command, **which))
    return run


@contextmanager
def _held(path: Path) -> Iterator[RunLock]:
    """The folder, locked; free again after an error in the block."""
    lock = RunLock(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        yield lock
    except BaseException as error:
        lock.release()
        if isinstance(error, OSError):
            raise InputError(f"cannot write to the work-dir {path}: {error.strerror or error}.") from None
        raise


def _drop_after(path: Path, step: int, *, evaluation_pending: bool) -> None:
    """Forget a run's metrics and checkpoints after `step`.

    An evaluation that is still to be made after `step` may have been made by a part of the run that was killed later.
    """
    for file in checkpoints(path):
        if checkpoint_iteration(file) > step:
            file.unlink()
    run = Run(path)
    owed = [id(line) for line in run.records if not any(key.startswith("train/") for key in line)]
    kept = [
        line
        for line in run.lines
        if line["step"] < step or (line["step"] == step and not (evaluation_pending and id(line) in owed))
    ]
    write_text(path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))


def check_folder(path: str | Path, config: str, *, resume: bool) -> None:
    """Whether a run with this resolved config (YAML) can start, or go on, in the folder; nothing is written."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"the work-dir {path} is a file. Give a folder's path with --work-dir.")
    if resume:
        if not (path / "config.yaml").exists():
            raise InputError(f"there is no run to resume in {path}: it has no config.yaml.")
        links = [entry.name for entry in path.iterdir() if entry.is_symlink() and entry.is_dir()]
        if links:
            raise InputError(
                f"{path / links[0]} is a link to another folder, into which the run would write. Put the folder itself"
                " there to resume."
            )
        different = [key for key in config_changes(Run(path).config, config) if not is_free(key, RESUMED_WITH)]
        if different:
            raise InputError(
                f"the run in {path} is of another experiment: {some(different, 8)} differ from its config.yaml. "
                "Resume it with its own config, or give another --work-dir."
            )
    elif path.is_dir() and any(not _left_behind(entry) for entry in path.iterdir()):
        what = "holds a run already" if (path / "config.yaml").exists() else "is not empty"
        raise InputError(
            f"the work-dir {path} {what}, and nothing in it was changed. "
            "Continue that run with --resume, or give another --work-dir."
        )


def _left_behind(path: Path) -> bool:
    # What a process that was killed at its very start leaves: the lock decides whether there is one.
    return path.name == LOCK or (path.name.startswith(".") and path.name.endswith(".tmp"))


def is_free(key: str, more: Sequence[str] = ()) -> bool:
    """Whether a key (with dots) is one of `FREE` or of `more`."""
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in (*FREE, *more))


def config_changes(kept: Mapping[str, Any], asked: str) -> dict[str, tuple[Any, Any]]:
    """By key (with dots): (before, now) where two configs differ; keys that both have come first."""
    before, now = flat(kept), flat(parse_yaml(asked, "the config") or {})
    keys = sorted(before.keys() | now.keys(), key=lambda key: (key not in before or key not in now, key))
    return {key: (before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str | float | int | bool]:
    """A nested config as one level, with dots; what is neither text nor a number becomes text."""
    found: dict[str, str | float | int | bool] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            plain_value = isinstance(value, (str, float, int, bool))
            found[f"{prefix}{key}"] = value if plain_value else json.dumps(value, default=str)
    return found


def experiment_values(config: Mapping[str, Any], free: Sequence[str] = ()) -> dict[str, Any]:
    """What makes a config this experiment and no other, by key (with dots): all but `FREE` and `free`."""
    return {key: value for key, value in flat(config).items() if not is_free(key, free)}
