"""The one reader of a run directory; whatever stands in its files, what it gives has the form that is said here."""

import json
import math
import re
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from dfad_seg.common.errors import InputError, printable
from dfad_seg.common.reading import MAX_YAML, parse_yaml, read_json, read_text
from dfad_seg.common.values import validated
from dfad_seg.runs.records import Provenance, Score, Summary, Weights

DATA_FREE = ("dfad", "random_noise")
"""Methods that train on no real images, unless images are given to transfer by."""
MAX_METRICS = 2**28
"""Bytes of `metrics.jsonl`."""
MAX_LISTED = 20_000
"""Pictures that are looked for."""

T = TypeVar("T")


class Run:
    """A run directory: finished, on its way, damaged, or a stranger's. Nothing in it is executed.

    Each property reads its file when it is first asked for, and raises InputError if the file is not what we write.

    Raises:
        InputError: the folder has no readable `config.yaml` with a `method`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        what = f"{path} is not a run directory of dfad_seg"
        self.config_text = read_text(self.path / "config.yaml", what, limit=MAX_YAML)
        config = parse_yaml(self.config_text, str(self.path / "config.yaml"))
        if not isinstance(config, dict) or not isinstance(config.get("method"), str):
            raise InputError(f"{what}: its config.yaml names no method.")
        self.config: dict[str, Any] = {str(key): value for key, value in config.items()}
        self.method: str = printable(config["method"], 40)

    @cached_property
    def provenance(self) -> Provenance | None:
        """`provenance.json`; None if there is none yet."""
        return self._mapping("provenance.json", Provenance)

    @cached_property
    def summary(self) -> Summary | None:
        """`summary.json`; None if there is none yet."""
        return self._mapping("summary.json", Summary)

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """All lines of `metrics.jsonl`, without a last one that a crash cut off."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        lines: list[dict[str, Any]] = []
        for number, text in enumerate(read_text(path, "the metrics", limit=MAX_METRICS).splitlines(), start=1):
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                break  # a crash cut it off
            if not _is_line(line):
                raise InputError(f"line {number} of {path} is none of this program's: {printable(text, 60)}.")
            lines.append(line)
        return lines

    @property
    def kind(self) -> str:
        """The method; that real images were mixed in is part of it, whatever the config says by now."""
        record = self.provenance
        mixed = record is not None and record.real_images_used_for_training and self.method in DATA_FREE
        return f"{self.method} with transfer images" if mixed or self.config.get("transfer_images") else self.method

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl` that measure something: `step`, `elapsed_s`, and numbers or None by name."""
        return [line for line in self.lines if "event" not in line]

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its other lines, on what went wrong: `step`, `event`, `cause` and `found_at`."""
        return [line for line in self.lines if "event" in line]

    @property
    def network(self) -> Path | None:
        """The file of the trained network, which only a finished run has."""
        files = (self.path / f"{role}.pt" for role in ("student", "teacher"))
        return next((file for file in files if file.is_file()), None)

    @property
    def seconds(self) -> float:
        """Of training so far, pauses left out."""
        return self.lines[-1]["elapsed_s"] if self.lines else 0.0

    def score(self, network: str, *, split: str | None = None, weights: Weights | None = None) -> Score | None:
        """The score of the teacher or the student; by default of the weights that are kept, on the run's split.

        While a run is on its way, its last evaluation counts.
        """
        summary = self.summary
        if summary is None:
            return None
        trained = network == summary.role
        weights, split = weights or (summary.selected if trained else "last"), split or summary.split
        for score in summary.scores:
            if (score.network, score.split, score.weights) == (network, split, weights):
                return score
        return self._on_the_way(summary) if trained and (weights, split) == (summary.selected, summary.split) else None

    def _on_the_way(self, summary: Summary) -> Score | None:
        split = summary.split
        last = next((line for line in reversed(self.records) if line.get(f"{split}/mIoU") is not None), None)
        if last is None:
            return None
        start = f"{split}/IoU/"
        classes = {key.removeprefix(start): value for key, value in last.items() if key.startswith(start)}
        totals = {name: last.get(f"{split}/{name}") for name in ("mIoU", "mAcc", "aAcc")}
        values = {"network": summary.role, "weights": summary.selected, "split": split, **totals}
        return validated(
            Score, values | {"classes": list(classes), "IoU": list(classes.values())}, f"{self.path}/metrics.jsonl"
        )

    def picture(self, name: str) -> Path | None:
        """A picture of the run by its name in the folder, if it is a regular file in there and a PNG by its name."""
        file = self.path / name
        try:
            inside = file.resolve().is_relative_to(self.path.resolve())
            return file if inside and file.suffix == ".png" and file.is_file() and not file.is_symlink() else None
        except (OSError, ValueError, RuntimeError):  # too long a name, a NUL, links in a circle
            return None

    @property
    def generated(self) -> list[tuple[int, Path]]:
        """(iteration, file) of the pictures of generated images, in order."""
        found = []
        for _, file in zip(range(MAX_LISTED), (self.path / "pictures").glob("generated_*.png"), strict=False):
            number = re.fullmatch(r"generated_(\d{1,12})\.png", file.name)
            if number and (safe := self.picture(f"pictures/{file.name}")):
                found.append((int(number[1]), safe))
        return sorted(found)

    def _mapping(self, name: str, kind: type[T]) -> T | None:
        path = self.path / name
        if not path.exists():
            return None
        values = read_json(path, f"the run's {name}")
        if not isinstance(values, dict):
            raise InputError(f"{path} holds no mapping.")
        return validated(kind, values, str(path))


def _is_line(line: Any) -> bool:
    """Whether this is a line that we write: an event, or numbers by name."""
    if not isinstance(line, dict) or type(line.get("step")) is not int or line["step"] < 0:
        return False
    if not _is_number(line.get("elapsed_s")) or line["elapsed_s"] < 0:
        return False
    if "event" in line:
        texts = isinstance(line["event"], str) and isinstance(line.get("cause", ""), str)
        return texts and type(line.get("found_at", 0)) is int
    return all(value is None or _is_number(value) for value in line.values())


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value)
    )
