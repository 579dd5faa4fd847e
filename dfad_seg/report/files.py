"""Reading a run directory that may be unfinished, damaged, or written by another version: what is not there is None."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dfad_seg.common.errors import InputError

REPORT_DATA = "report.json"
"""Costs, teacher's score and examples: what the pipeline finds out for the report alone."""


@dataclass(frozen=True)
class RunFiles:
    """The files of a run directory, read."""

    path: Path
    config_text: str
    config: dict[str, Any]
    provenance: dict[str, Any] | None
    records: list[dict[str, Any]]
    """The lines of `metrics.jsonl` that measure something."""
    events: list[dict[str, Any]]
    """Its other lines: `event` and `cause`, where training noticed that something was wrong."""
    data: dict[str, Any]
    """`report.json`; empty where there is none."""
    generated: list[tuple[int, Path]]
    """(iteration, file) of the grids of generated images, in order."""
    missing: list[str]

    @classmethod
    def read(cls, run: str | Path) -> RunFiles:
        """Read what is there.

        Raises:
            InputError: the folder is not a run directory: it has no readable `config.yaml`.
        """
        path, missing = Path(run), []
        try:
            text = (path / "config.yaml").read_text(encoding="utf-8")
            config = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{path} is not a run directory of dfad_seg: {_reason(error)}.") from None
        if not isinstance(config, dict) or "method" not in config:
            raise InputError(f"{path} is not a run directory of dfad_seg: its config.yaml names no method.")

        def mapping(name: str) -> dict[str, Any] | None:
            try:
                value = json.loads((path / name).read_text(encoding="utf-8"))
            except FileNotFoundError:
                return None
            except (OSError, ValueError, RecursionError) as error:
                missing.append(f"{name} could not be read: {_reason(error)}")
                return None
            if not isinstance(value, dict):
                missing.append(f"{name} holds no mapping")
                return None
            return value

        provenance, data = mapping("provenance.json"), mapping(REPORT_DATA)
        try:
            lines = _json_lines(path / "metrics.jsonl")
        except (OSError, UnicodeDecodeError) as error:
            missing.append(f"metrics.jsonl could not be read: {_reason(error)}")
            lines = []
        records = [line for line in lines if "event" not in line]
        events = [line for line in lines if "event" in line]
        return cls(path, text, config, provenance, records, events, data or {}, _generated(path), missing)

    def inside(self, name: Any) -> Path | None:
        """A file that a record names, if it is there and within the run directory."""
        if not isinstance(name, str):
            return None
        file = (self.path / name).resolve()
        return file if file.is_file() and file.is_relative_to(self.path.resolve()) else None


def _json_lines(file: Path) -> list[dict[str, Any]]:
    """The lines that belong to an iteration, without a last one that a crash cut off."""
    if not file.exists():
        return []
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            break
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


def _generated(path: Path) -> list[tuple[int, Path]]:
    found = []
    for file in (path / "pictures").glob("generated_*.png"):
        number = re.fullmatch(r"generated_(\d+)\.png", file.name)
        if number:
            found.append((int(number[1]), file))
    return sorted(found)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
