"""One experiment's folder: what ran, what came out, and what is needed to go on."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from dfad_seg.errors import InputError
from dfad_seg.files import write_json, write_text, write_torch
from dfad_seg.runs.loggers import check_loggers, flat, open_loggers

CHECKPOINT_FORMAT = "dfad_seg/checkpoint"
CHECKPOINT_VERSION = 1
LOGGERS = ("tensorboard",)


class RunDirectory:
    """`config.yaml`, `provenance.json`, `metrics.jsonl`, what the loggers write, `checkpoints/`, pictures.

    Create it with `RunDirectory.start` or `RunDirectory.resume`. Only the process of rank 0 should hold one.
    """

    def __init__(
        self, path: Path, *, keep_checkpoints: int, elapsed: float, step: int, loggers: Sequence[str], config: str
    ) -> None:
        self.path = path
        self.keep_checkpoints = keep_checkpoints
        self._started = time.monotonic() - elapsed
        self._metrics = open(path / "metrics.jsonl", "a", encoding="utf-8")
        self._loggers = open_loggers(path, loggers, step=step)
        settings = yaml.safe_load(config) or {}
        split = (settings.get("evaluation") or {}).get("split")
        for logger in self._loggers:
            logger.settings(flat(settings), [f"{split}/mIoU"] if split else [])

    @classmethod
    def start(
        cls, path: str | Path, config: str, *, keep_checkpoints: int = 2, loggers: Sequence[str] = LOGGERS
    ) -> RunDirectory:
        """A new run in an absent or empty folder; raises InputError as `check_folder` and `check_loggers` do."""
        path = Path(path)
        check_loggers(loggers)
        check_folder(path, config, resume=False)
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_text(path / "config.yaml", config)
        except OSError as error:
            raise InputError(f"cannot write to the work-dir {path}: {error.strerror}.") from None
        return cls(path, keep_checkpoints=keep_checkpoints, elapsed=0.0, step=0, loggers=loggers, config=config)

    @classmethod
    def resume(
        cls, path: str | Path, config: str, *, step: int, keep_checkpoints: int = 2, loggers: Sequence[str] = LOGGERS
    ) -> RunDirectory:
        """An existing run, to go on after `step`; later metrics are dropped, as they will be measured again.

        Raises InputError as `check_folder` and `check_loggers` do.
        """
        path = Path(path)
        check_loggers(loggers)
        check_folder(path, config, resume=True)
        records = [record for record in read_metrics(path) if record["step"] <= step]
        write_text(path / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records))
        elapsed = records[-1]["elapsed_s"] if records else 0.0
        return cls(path, keep_checkpoints=keep_checkpoints, elapsed=elapsed, step=step, loggers=loggers, config=config)

    @property
    def elapsed(self) -> float:
        """Seconds of this run so far, over all its parts."""
        return time.monotonic() - self._started

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Append one line to `metrics.jsonl` and the same scalars to the loggers; NaN becomes null."""
        clean = {k: (float(v) if math.isfinite(v) else None) for k, v in scalars.items()}
        record = {"step": step, "elapsed_s": round(self.elapsed, 3), **clean}
        self._metrics.write(json.dumps(record) + "\n")
        self._metrics.flush()
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
        shutil.rmtree(self.path)

    def close(self) -> None:
        """Flush and close the files."""
        self._metrics.close()
        for logger in self._loggers:
            logger.close()


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
        if path.is_dir() and any(path.iterdir()):
            what = "holds a run already" if kept.exists() else "is not empty"
            raise InputError(
                f"the work-dir {path} {what}, and nothing in it was changed. "
                "Continue that run with --resume, or give another --work-dir."
            )
        return
    if not kept.exists():
        raise InputError(f"there is no run to resume in {path}: it has no config.yaml.")
    different = config_differences(kept.read_text(encoding="utf-8"), config)
    if different:
        more = len(different) - SHOWN_KEYS
        named = ", ".join(different[:SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")
        raise InputError(
            f"the run in {path} is of another experiment: {named} differ from its config.yaml. "
            "Resume it with its own config, or give another --work-dir."
        )


def checkpoints(run: str | Path) -> list[Path]:
    """The run's complete checkpoints, oldest first."""
    folder = Path(run) / "checkpoints"
    return sorted(p for p in folder.glob("iteration_*.pt") if re.fullmatch(r"iteration_\d+\.pt", p.name))


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
    return state


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """The records of `metrics.jsonl`, without a last line that a crash cut off."""
    path = Path(run) / "metrics.jsonl"
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


SHOWN_KEYS = 8
"""Of the differing keys, so many are named in a message."""

# What may change between the parts of one run without making it another experiment.
FREE_KEYS = {"device", "log_every", "save_every", "preview_every", "keep_checkpoints", "loggers", "report"}


def config_differences(kept: str, asked: str) -> list[str]:
    """The keys in which two configs (YAML) are not of one experiment; those that both name come first."""
    kept_values, asked_values = yaml.safe_load(kept) or {}, yaml.safe_load(asked) or {}
    both = kept_values.keys() & asked_values.keys()
    keys = sorted((kept_values.keys() | asked_values.keys()) - FREE_KEYS, key=lambda key: (key not in both, key))
    return [key for key in keys if kept_values.get(key) != asked_values.get(key)]
