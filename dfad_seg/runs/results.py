"""A machine-readable list of results, made from run directories."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_json
from dfad_seg.runs.summary import scored_split, summarise

NEEDED = {"setting", "runs", "teacher"}
KEYS = NEEDED | {"method", "command"}


def results_rows(
    listing: str | Path, *, root: str | Path = ".", known: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """One row per entry of a YAML list of settings.

    Args:
        listing: a list of mappings with `setting` (its name), `runs` (glob patterns of run directories, one run per
            seed), `teacher` (the teacher's run directory) and, optionally, `method` (a name for the row) and `command`;
            by default they are those that the runs themselves say.
        root: the folder from which the patterns are resolved.
        known: rows that stand for entries whose runs are not here (any more): those with their `setting` and `method`;
            the command is the list's, where it has one.

    Returns:
        Mappings with `setting`, `method`, `split` (where they were scored), `teacher_miou` and `student_miou_mean`
        (fractions), `student_miou_sd` (over seeds; None for a single one), `seeds`, `selected` (last or ema),
        `wall_clock_s` (mean over seeds), `device` and `command` (of the first seed).

    Raises:
        InputError: the list is malformed; a pattern matches no run, and no known row stands for it; a run has not
            finished, or has not been scored, or on another split than the rest; runs of one row differ in method or in
            the weights that were kept.
    """
    try:
        entries = yaml.safe_load(Path(listing).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {listing}: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{listing} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{listing} must hold a list of mappings with the keys {', '.join(sorted(KEYS))}.")
    return [_row(entry, Path(root), str(listing), known) for entry in entries]


def write_results(listing: str | Path, out: str | Path, *, root: str | Path = ".") -> None:
    """Write `results_rows` as JSON, whole. Rows of runs that are not here stay as the file has them.

    Raises:
        InputError: as `results_rows`; the file is there and holds something else.
    """
    known: Any = []
    if Path(out).exists():
        try:
            known = json.loads(Path(out).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"cannot read {out}: {error}. Choose another --out.") from None
        if not isinstance(known, list) or not all(isinstance(row, dict) for row in known):
            raise InputError(f"{out} is there and holds no list of results. Choose another --out.")
    write_json(out, results_rows(listing, root=root, known=known))


def _row(entry: dict[str, Any], root: Path, listing: str, known: Sequence[dict[str, Any]]) -> dict[str, Any]:
    missing, unknown = sorted(NEEDED - entry.keys()), sorted(entry.keys() - KEYS)
    if missing or unknown:
        raise InputError(
            f"{listing}: an entry with the keys {', '.join(map(str, entry))} "
            f"{'lacks ' + ', '.join(missing) if missing else 'has the unknown key ' + ', '.join(unknown)}."
        )
    patterns = [entry["runs"]] if isinstance(entry["runs"], str) else entry["runs"]
    folders = sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_dir()})
    if not folders:
        for row in known:
            if (row.get("setting"), row.get("method")) == (entry["setting"], entry.get("method")):
                return row | {"command": entry.get("command", row.get("command"))}
        raise InputError(f"{listing}: {entry['setting']}: no run matches {', '.join(patterns)} under {root}.")
    runs = [summarise(folder) for folder in folders]
    teacher = summarise(root / entry["teacher"])
    for folder, summary in [(root / entry["teacher"], teacher), *zip(folders, runs, strict=True)]:
        if summary.test is None:
            raise InputError(
                f"{folder} has no test score. Write it: tools/eval_miou.py ... --out {folder}/test_metrics.json"
            )
    for what in ("method", "selected"):
        kinds = sorted({getattr(run, what) for run in runs})
        if len(kinds) > 1:
            raise InputError(f"{listing}: {entry['setting']}: its runs differ in {what}: {', '.join(kinds)}.")
    scores = [run.test["mIoU"] for run in runs if run.test is not None]
    return {
        "setting": entry["setting"],
        "method": entry.get("method", runs[0].method),
        "split": scored_split([teacher, *runs]),
        "teacher_miou": None if teacher.test is None else teacher.test["mIoU"],
        "student_miou_mean": statistics.mean(scores),
        "student_miou_sd": statistics.stdev(scores) if len(scores) > 1 else None,
        "seeds": [run.seed for run in runs],
        "selected": runs[0].selected,
        "wall_clock_s": round(statistics.mean(run.hours * 3600 for run in runs), 1),
        "device": "; ".join(sorted({run.device for run in runs})),
        "command": entry.get("command", runs[0].command),
    }
