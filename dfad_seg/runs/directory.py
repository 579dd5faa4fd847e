"""One experiment's folder: what ran, what came out, and what is needed to go on."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import remove_temporaries, write_json, write_text, write_torch
from dfad_seg.runs.lock import NAME as LOCK
from dfad_seg.runs.lock import RunLock
from dfad_seg.runs.loggers import Logger, check_loggers, flat, open_loggers

CHECKPOINT_FORMAT = "dfad_seg/checkpoint"
CHECKPOINT_VERSION = 1
LOGGERS = ("tensorboard",)
_PARTS = {"iteration": int, "networks": dict}


class RunDirectory:
    """`config.yaml`, `provenance.json`, `metrics.jsonl`, what the loggers write, `checkpoints/`, pictures.

    Create it with `RunDirectory.start` or `RunDirectory.resume`. Only the process of rank 0 should hold one.
    """

    def __init__(
        self,
        path: Path,
        *,
        lock: RunLock,
        keep_checkpoints: int,
        elapsed: float,
        step: int,
        loggers: Sequence[str],
        config: str,
    ) -> None:
        self.path = path
        self.keep_checkpoints = keep_checkpoints
        self._lock = lock
        self._started = time.monotonic() - elapsed
        settings = yaml.safe_load(config) or {}
        split = (settings.get("evaluation") or {}).get("split")
        self._settings = flat(settings)
        self._compared = [f"{split}/mIoU"] if split else []
        self._names = tuple(loggers)
        self._loggers: list[Logger] = []
        self._open_logs(step)

    def _open_logs(self, step: int) -> None:
        self._metrics = open(self.path / "metrics.jsonl", "a", encoding="utf-8")
        self._loggers = open_loggers(self.path, self._names, step=step)
        for logger in self._loggers:
            logger.settings(self._settings, self._compared)

    @classmethod
    def start(
        cls, path: str | Path, config: str, *, keep_checkpoints: int = 2, loggers: Sequence[str] = LOGGERS
    ) -> RunDirectory:
        """A new run in an absent or empty folder, locked; raises InputError as `check_folder` and `check_loggers`."""
        path = Path(path)
        check_loggers(loggers)
        check_folder(path, config, resume=False)
        absent = not path.exists()
        with _writing(path):
            path.mkdir(parents=True, exist_ok=True)
            lock = RunLock(path)
            lock.acquire()
            try:
                check_folder(path, config, resume=False)  # another run may have come and gone meanwhile
                remove_temporaries(path)
                write_text(path / "config.yaml", config)
                return cls(
                    path,
                    lock=lock,
                    keep_checkpoints=keep_checkpoints,
                    elapsed=0.0,
                    step=0,
                    loggers=loggers,
                    config=config,
                )
            except BaseException:
                lock.release()
                if absent:
                    shutil.rmtree(path, ignore_errors=True)
                raise

    @classmethod
    def resume(
        cls,
        path: str | Path,
        config: str,
        *,
        step: int,
        keep_checkpoints: int = 2,
        evaluation_pending: bool = False,
        loggers: Sequence[str] = LOGGERS,
    ) -> RunDirectory:
        """An existing run, to go on after `step`, locked; `evaluation_pending`: with that step's evaluation.

        Later metrics and checkpoints are dropped, as they will be made again, and so is what a killed process left
        half-written. Raises InputError as `check_folder` and `check_loggers` do.
        """
        path = Path(path)
        check_loggers(loggers)
        check_folder(path, config, resume=True)
        with _writing(path):
            lock = RunLock(path)
            lock.acquire()
            try:
                for folder in (path, path / "checkpoints", path / "pictures"):
                    remove_temporaries(folder)
                elapsed = _drop_after(path, step, evaluation_pending=evaluation_pending)
                return cls(
                    path,
                    lock=lock,
                    keep_checkpoints=keep_checkpoints,
                    elapsed=elapsed,
                    step=step,
                    loggers=loggers,
                    config=config,
                )
            except BaseException:
                lock.release()
                raise

    @property
    def elapsed(self) -> float:
        """Seconds of this run so far, over all its parts."""
        return time.monotonic() - self._started

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Append one line to `metrics.jsonl` and the same scalars to the loggers; NaN becomes null."""
        clean = {k: (float(v) if math.isfinite(v) else None) for k, v in scalars.items()}
        self._append(step, clean)
        finite = {name: value for name, value in clean.items() if value is not None}
        for logger in self._loggers:
            logger.scalars(step, finite)

    def log_picture(self, name: str, step: int, file: Path) -> None:
        """Show a picture file of the run to the loggers."""
        if not self._loggers:
            return
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        for logger in self._loggers:
            logger.picture(name, step, pixels)

    def note(self, step: int, record: dict[str, Any]) -> None:
        """Append a line to `metrics.jsonl` that is no measurement: `event`, `cause` and `found_at`."""
        self._append(step, record)

    def _append(self, step: int, values: dict[str, Any]) -> None:
        self._metrics.write(json.dumps({"step": step, "elapsed_s": round(self.elapsed, 3), **values}) + "\n")
        self._metrics.flush()

    def rewind(self, step: int) -> None:
        """Go on after `step`: later metrics and checkpoints are dropped."""
        self._close_logs()
        _drop_after(self.path, step)
        self._open_logs(step)

    def save_checkpoint(self, state: dict[str, Any]) -> Path:
        """Write `checkpoints/iteration_N.pt` whole, then drop all but the newest few."""
        folder = self.path / "checkpoints"
        target = folder / f"iteration_{state['iteration']:08d}.pt"
        self._metrics.flush()
        os.fsync(self._metrics.fileno())
        write_torch(target, {"format": CHECKPOINT_FORMAT, "version": CHECKPOINT_VERSION, **state})
        for old in checkpoints(self.path)[: -self.keep_checkpoints]:
            old.unlink()
        return target

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file into the run directory, whole."""
        write_json(self.path / name, value)
        return self.path / name

    def discard(self) -> None:
        """Remove a run that has nothing worth keeping; the folder was absent or empty when it started."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> None:
        """Close the files and give the folder free, also where the disk takes no more."""
        try:
            self._close_logs()
        finally:
            self._lock.release()

    def _close_logs(self) -> None:
        for close in (self._metrics.close, *(logger.close for logger in self._loggers)):
            try:
                close()
            except OSError:
                pass  # what could not be written has been reported when it was


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to the work-dir {path}: {error.strerror or error}.") from None


def _drop_after(path: Path, step: int, *, evaluation_pending: bool = False) -> float:
    """Forget a run's metrics and checkpoints after `step`; returns the seconds that it had taken until there.

    An evaluation that is still to be made after `step` may have been made by a part of the run that was killed later.
    """
    for file in checkpoints(path):
        if checkpoint_iteration(file) > step:
            file.unlink()
    records = [
        record
        for record in _read_records(path)
        if record["step"] < step or (record["step"] == step and not (evaluation_pending and _is_evaluation(record)))
    ]
    write_text(path / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    return records[-1]["elapsed_s"] if records else 0.0


def _is_evaluation(record: dict[str, Any]) -> bool:
    return "event" not in record and not any(key.startswith("train/") for key in record)


def check_folder(path: str | Path, config: str, *, resume: bool) -> None:
    """Whether a run with this resolved config (YAML) can start, or go on, in the folder; nothing is written.

    Raises:
        InputError: a new run's folder holds something already; a resumed one holds no run, or one of another config.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"the work-dir {path} is a file. Give a folder's path with --work-dir.")
    kept = path / "config.yaml"
    if not resume:
        if path.is_dir() and any(not _left_behind(entry) for entry in path.iterdir()):
            what = "holds a run already" if kept.exists() else "is not empty"
            raise InputError(
                f"the work-dir {path} {what}, and nothing in it was changed. "
                "Continue that run with --resume, or give another --work-dir."
            )
        return
    if not kept.exists():
        raise InputError(f"there is no run to resume in {path}: it has no config.yaml.")
    try:
        different = config_differences(kept.read_text(encoding="utf-8"), config)
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError) as error:
        raise InputError(f"{kept} is no config of a run any more ({type(error).__name__}). Restore it.") from None
    except OSError as error:
        raise InputError(f"cannot read {kept}: {error.strerror}.") from None
    if different:
        more = len(different) - SHOWN_KEYS
        named = ", ".join(different[:SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")
        raise InputError(
            f"the run in {path} is of another experiment: {named} differ from its config.yaml. "
            "Resume it with its own config, or give another --work-dir."
        )


def _left_behind(path: Path) -> bool:
    # What a process that was killed at its very start leaves: the lock decides whether there is one.
    return path.name == LOCK or (path.name.startswith(".") and path.name.endswith(".tmp"))


def checkpoints(run: str | Path) -> list[Path]:
    """The run's complete checkpoints, oldest first."""
    folder = Path(run) / "checkpoints"
    return sorted(p for p in folder.glob("iteration_*.pt") if re.fullmatch(r"iteration_\d+\.pt", p.name))


def checkpoint_iteration(path: Path) -> int:
    """The iteration after which a checkpoint was saved, by its name."""
    return int(path.stem.rpartition("_")[2])


def newest_checkpoint(run: str | Path, before: int) -> Path | None:
    """The newest checkpoint up to iteration `before`, else the oldest there is, else None."""
    found = checkpoints(run)
    fitting = [path for path in found if checkpoint_iteration(path) <= before]
    return fitting[-1] if fitting else next(iter(found), None)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a resumable checkpoint; nothing in it can run code.

    Raises:
        InputError: not a checkpoint of this program, or damaged.
    """
    path = Path(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint {path}.") from None
    except Exception as error:  # torch raises many kinds for a damaged file
        raise InputError(
            f"cannot read the checkpoint {path}: it is damaged or not a checkpoint ({type(error).__name__}). "
            "Resume from an older one in the same folder."
        ) from None
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise InputError(f"{path} is not a resumable checkpoint of dfad_seg. Those are in checkpoints/ of a run.")
    if state.get("version") != CHECKPOINT_VERSION:
        raise InputError(
            f"{path} is a checkpoint of version {state.get('version')}; this program reads {CHECKPOINT_VERSION}."
        )
    wrong = [key for key, kind in _PARTS.items() if not isinstance(state.get(key), kind)]
    if wrong or state["iteration"] < 0:
        raise InputError(
            f"the checkpoint {path} is incomplete: {', '.join(wrong) or 'iteration'} is missing or of another type. "
            "Resume from an older one in the same folder."
        )
    return state


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """The measurements in `metrics.jsonl`, without a last line that a crash cut off."""
    return [record for record in _read_records(run) if "event" not in record]


def read_events(run: str | Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` that say what went wrong: `step`, `event`, `cause` and `found_at`."""
    return [record for record in _read_records(run) if "event" in record]


def _read_records(run: str | Path) -> list[dict[str, Any]]:
    path = Path(run) / "metrics.jsonl"
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        if not isinstance(record, dict) or not {"step", "elapsed_s"} <= record.keys():
            break
        records.append(record)
    return records


SHOWN_KEYS = 8
"""Of the differing keys, so many are named in a message."""

# What may change between the parts of one run without making it another experiment.
FREE_KEYS = {"device", "health", "log_every", "save_every", "preview_every", "keep_checkpoints", "loggers", "report"}


def config_differences(kept: str, asked: str) -> list[str]:
    """The keys in which two configs (YAML) are not of one experiment; those that both name come first."""
    kept_values, asked_values = yaml.safe_load(kept) or {}, yaml.safe_load(asked) or {}
    both = kept_values.keys() & asked_values.keys()
    keys = sorted((kept_values.keys() | asked_values.keys()) - FREE_KEYS, key=lambda key: (key not in both, key))
    return [key for key in keys if kept_values.get(key) != asked_values.get(key)]
