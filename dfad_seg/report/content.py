"""The files of a run become what its report says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfad_seg.report.files import RunFiles
from dfad_seg.report.health import can_judge, health_warnings
from dfad_seg.report.parts import Chart, Content, Picture, Series
from dfad_seg.report.provenance import claim, provenance_rows
from dfad_seg.report.tables import class_table, evaluation_split, headline, network_table

SHOWN_GRIDS = 4
"""Grids of generated images in a report: the first, the last, and others evenly between."""
METHODS = {
    "supervised": "Training on labels",
    "distill_with_data": "Distillation on real images (a control)",
    "dfad": "Data-free adversarial distillation",
    "random_noise": "Distillation on random noise (a control)",
}
_HEALTHY = (
    "Looked for and not found: losses that are not finite or grow, a collapsed generator, saturated agreement, "
    "forgetting, a falling score."
)


def read_content(run: str | Path) -> Content:
    """What the report of a run directory says, as its files stand now.

    Raises:
        InputError: the folder is not a run directory.
    """
    files = RunFiles.read(run)
    finished, status = _status(files)
    data_free, sentence = claim(files)
    warnings = health_warnings(files.records, files.events)
    name = METHODS.get(str(files.config["method"]), str(files.config["method"]))
    return Content(
        title=f"{name}: {files.path.resolve().name}",
        finished=finished,
        status=status,
        headline=headline(files),
        warnings=warnings,
        healthy=_HEALTHY if can_judge(files.records) and not warnings else "",
        networks=network_table(files),
        classes=class_table(files),
        charts=_charts(files),
        generated=[Picture(file, f"after {step:,} iterations") for step, file in evenly(files.generated, SHOWN_GRIDS)],
        examples=_examples(files),
        data_free=data_free,
        claim=sentence,
        provenance=provenance_rows(files),
        config=files.config_text,
        missing=files.missing,
    )


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """`count` of the items, first and last among them, or all if there are no more."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _status(files: RunFiles) -> tuple[bool, str]:
    done = max((record["step"] for record in files.records), default=0)
    total = files.config.get("iterations") or 0
    # What was logged says how long it took; a run that is stopped and resumed does not count the pause.
    seconds = next((r["elapsed_s"] for r in reversed(files.records) if _number(r.get("elapsed_s"))), 0.0)
    finished = any((files.path / f"{role}.pt").is_file() for role in ("student", "teacher"))
    spent = f" in {_duration(seconds)}" if seconds else ""
    if finished:
        return True, f"Finished: {total:,} iterations{spent}."
    return False, f"Not finished: {done:,} of {total:,} iterations{spent}, as far as is logged."


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _charts(files: RunFiles) -> list[Chart]:
    series = _series(files.records)

    def pick(*ends: str, start: str = "train/") -> list[str]:
        return sorted(key for key in series if key.startswith(start) and key.endswith(ends))

    def lines(keys: Sequence[str]) -> list[Series]:
        return [Series(key.removeprefix("train/").replace("_", " "), *series[key]) for key in keys]

    charts = []
    split = evaluation_split(files)
    scores = [key for key in pick("/mIoU", "/aAcc", start="") if split is None or key.startswith(f"{split}/")]
    if scores:
        charts.append(Chart("scores on the way", lines(scores), floor=0.0))
    charts += [Chart(key.removeprefix("train/").replace("_", " "), lines([key]), smooth=True) for key in pick("loss")]
    agreement, entropy = pick("_agreement"), pick("_class_entropy", "_largest_class")
    if agreement:
        charts.append(Chart("agreement with the teacher", lines(agreement), floor=0.0, ceiling=1.0))
    if entropy:
        charts.append(Chart("teacher's answers on generated images", lines(entropy), floor=0.0, ceiling=1.0))
    rates = pick("_lr")
    if rates:
        positive = all(min(series[key][1]) > 0 for key in rates)
        charts.append(Chart("learning rates", lines(rates), log=positive))
    return charts


def _series(records: Sequence[dict[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """key → (steps, values), ascending; of two values for one step the later counts."""
    points: dict[str, dict[float, float]] = {}
    for record in records:
        if not _number(record["step"]):
            continue
        for key, value in record.items():
            if "/" in key and _number(value):
                points.setdefault(key, {})[record["step"]] = float(value)
    ordered = {key: sorted(values.items()) for key, values in points.items()}
    return {key: ([s for s, _ in pairs], [v for _, v in pairs]) for key, pairs in ordered.items()}


def _examples(files: RunFiles) -> list[Picture]:
    pictures = []
    rows = files.data.get("examples")
    for row in rows if isinstance(rows, list) else []:
        file = files.inside(row.get("file")) if isinstance(row, dict) else None
        if file is None:
            continue
        score = f", mIoU {100 * row['miou']:.1f} %" if _number(row.get("miou")) else ""
        teacher = f" (teacher {100 * row['teacher_miou']:.1f} %)" if _number(row.get("teacher_miou")) else ""
        pictures.append(Picture(file, f"{row.get('kind', 'example')}: {row.get('name', file.stem)}{score}{teacher}"))
    return pictures


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
