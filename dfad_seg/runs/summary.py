"""Results tables made from run directories, so that no number is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_json, write_text
from dfad_seg.evaluation import SegmentationMetrics
from dfad_seg.runs.run import Run

TEST_METRICS = "test_metrics.json"


def write_test_score(run: Path, metrics: SegmentationMetrics, *, role: str, command: str) -> None:
    """Note a finished run's score on the test split in its directory, as `eval_miou.py --out` does."""
    record = {"role": role, "checkpoint": str(run / f"{role}.pt"), "split": "test", "command": command}
    write_json(run / TEST_METRICS, record | metrics.to_dict())


@dataclass(frozen=True)
class RunSummary:
    """One finished run, as its own files tell it."""

    name: str
    method: str
    seed: int
    student_steps: int
    """Optimiser steps of the trained network."""
    hours: float
    """Wall-clock of training, evaluations included."""
    split: str | None
    """The split that was evaluated on the way."""
    curve: tuple[tuple[int, float], ...]
    """(iteration, mIoU) on it; the last is that of the kept network."""
    test: dict[str, Any] | None
    """What `eval_miou.py --out RUN/test_metrics.json` wrote; its `split` may be another one."""
    parameters: int
    device: str
    commit: str | None
    selected: str
    """Which weights were kept: `last` or `ema`."""
    iterations: int
    command: str


def summarise(run: str | Path) -> RunSummary:
    """Read a finished run.

    Raises:
        InputError: not a run directory, or the run has not finished.
    """
    run = Path(run)
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        provenance = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
        test = None
        if (run / TEST_METRICS).exists():
            test = json.loads((run / TEST_METRICS).read_text(encoding="utf-8"))
        method, seed, iterations = config["method"], config["seed"], config["iterations"]
        parameters, device, commit = (provenance[k] for k in ("trained_parameters", "device", "git_commit"))
        command = str(provenance.get("command", ""))
        steps = iterations * (config.get("student_steps", 1) + config.get("replay_steps", 0))  # of older runs
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{run} is not a run directory of dfad_seg: {error}.") from None
    records = Run(run).records
    if not records or records[-1]["step"] < iterations:
        done = records[-1]["step"] if records else 0
        raise InputError(f"the run {run} has not finished: {done} of {iterations} iterations. Resume it first.")
    split = (config.get("evaluation") or {}).get("split")
    curve = tuple((r["step"], r[f"{split}/mIoU"]) for r in records if r.get(f"{split}/mIoU") is not None)
    return RunSummary(
        name=run.name,
        method=method,
        seed=seed,
        student_steps=provenance.get("trained_steps", steps),
        hours=records[-1]["elapsed_s"] / 3600,
        split=split,
        curve=curve,
        test=test,
        parameters=parameters,
        device=device,
        commit=commit,
        selected="ema" if config.get("ema_decay") else "last",
        iterations=iterations,
        command=command,
    )


def scored_split(summaries: Sequence[RunSummary]) -> str:
    """The split of all `test` scores; `test` if there are none.

    Raises:
        InputError: they are of different splits.
    """
    splits = sorted({str(s.test.get("split", "test")) for s in summaries if s.test is not None}) or ["test"]
    if len(splits) > 1:
        raise InputError(f"the runs' scores are of different splits: {', '.join(splits)}. Score them on the same one.")
    return splits[0]


def results_table(runs: Sequence[str | Path], *, teacher: str | Path) -> str:
    """A Markdown table of runs against their teacher's run, the curves of validation, and where it was measured.

    All numbers are of the last (or, where the config says `ema_decay`, the averaged) weights; nothing was selected.

    Raises:
        InputError: as `summarise`, or the runs were scored on different splits.
    """
    summaries = [summarise(teacher), *(summarise(run) for run in runs)]
    reference = summaries[0].test
    tested = [(s.name, s.test) for s in summaries if s.test is not None]
    scored = scored_split(summaries)
    lines = [
        "| run | method | seed | parameters | steps of the trained network | minutes | last mIoU on the way "
        f"| {scored} mIoU | share of the teacher's {scored} mIoU |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for s in summaries:
        test = None if s.test is None else s.test["mIoU"]
        share = None if test is None or not reference else test / reference["mIoU"]
        lines.append(
            f"| {s.name} | {s.method} | {s.seed} | {s.parameters:,} | {s.student_steps:,} | {60 * s.hours:.1f} "
            f"| {_last(s)} | {_number(test)} | {'' if share is None else f'{share:.1%}'} |"
        )
    lines += ["", "mIoU on the way (iteration: mIoU):", ""]
    for s in summaries:
        lines.append(f"- {s.name} ({s.split}): " + ", ".join(f"{step}: {_number(value)}" for step, value in s.curve))
    if tested:
        header = " | ".join(name for name, _ in tested)
        lines += ["", f"{scored[0].upper()}{scored[1:]} IoU per class:", "", f"| class | {header} |"]
        lines.append("|---" * (len(tested) + 1) + "|")
        for i, name in enumerate(tested[0][1]["classes"]):
            lines.append(f"| {name} | " + " | ".join(_number(test["IoU"][i]) for _, test in tested) + " |")
    devices = sorted({s.device for s in summaries})
    commits = sorted({str(s.commit)[:12] for s in summaries})
    lines += ["", f"Measured on {'; '.join(devices)}. Code: {', '.join(commits)}."]
    return "\n".join(lines) + "\n"


def place_in(file: str | Path, name: str) -> tuple[str, str]:
    """What stands before and after the lines between `<!-- begin NAME -->` and `<!-- end NAME -->` of a Markdown file.

    Raises:
        InputError: the file or its markers are missing.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    try:
        whole = Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}.") from None
    before, found, rest = whole.partition(begin)
    if not found or end not in rest:
        raise InputError(f"{file} has no place for this table: it needs the lines '{begin}' and '{end}'.")
    return f"{before}{begin}\n", end + rest.split(end, 1)[1]


def put_into(file: str | Path, name: str, text: str) -> None:
    """Replace what is between the markers of that name in a Markdown file by `text`.

    Raises:
        InputError: as `place_in`.
    """
    before, after = place_in(file, name)
    write_text(file, f"{before}{text}{after}")


def _last(summary: RunSummary) -> str:
    return f"{_number(summary.curve[-1][1])} ({summary.split})" if summary.curve else "–"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
