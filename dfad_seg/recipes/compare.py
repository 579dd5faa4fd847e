"""Runs beside each other: their table, their files, and their rows in a list of results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dfad_seg.common.files import check_target
from dfad_seg.runs.compare import compare, markdown, update_results, write_comparison


def compare_runs(
    runs: Sequence[str],
    *,
    teacher: str | None,
    split: str | None,
    setting: str | None,
    method: str | None,
    out: str | None,
    results: str | None,
) -> None:
    """Print the table of runs, after its files were written into `out` and its rows into the list `results`.

    Raises:
        InputError: what is named is no run, is not scored on the split, or a file cannot take the rows.
    """
    for name, path in (("--results", results), ("--out", out)):
        if path is not None:
            check_target(path, name, folder=name == "--out")
    rows = compare(runs, teacher=teacher, split=split, setting=setting, method=method)
    if results is not None:
        update_results(results, rows)
    files: list[Path] = [] if out is None else write_comparison(rows, out)
    print(markdown(rows), end="")
    for file in files:
        print(file)
