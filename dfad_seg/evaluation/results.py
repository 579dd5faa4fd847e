"""What one evaluation found, as a value, a text, JSON and CSV; and several side by side."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_json, write_text
from dfad_seg.evaluation.bootstrap import Difference, Interval
from dfad_seg.evaluation.metrics import SegmentationMetrics
from dfad_seg.evaluation.tables import align, percent

Row = tuple[str, str, float]
OUTPUT_SUFFIXES = (".json", ".csv")


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one model on one data set, and what else was asked for; all values are fractions.

    Attributes:
        metrics: from the confusion matrix.
        boundary_iou: of each class, or nan; None if it was not asked for, as the following.
        calibration_error: over pixels.
        agreement: share of pixels with the teacher's label.
        class_agreement: of the teacher's pixels of each class, the share with the same label; or nan.
        interval: of mIoU.
        subset: class names of the subset.
        subset_interval: of the subset's mIoU.
        counts: int64 (N, 3, C), see `resampled_miou`.
    """

    metrics: SegmentationMetrics
    boundary_iou: tuple[float, ...] | None = None
    calibration_error: float | None = None
    agreement: float | None = None
    class_agreement: tuple[float, ...] | None = None
    interval: Interval | None = None
    subset: tuple[str, ...] = ()
    subset_interval: Interval | None = None
    counts: np.ndarray | None = None

    def summary(self) -> dict[str, float]:
        """The values that are not per class."""
        values = {name: getattr(self.metrics, name) for name in ("mIoU", "mAcc", "aAcc", "mDice", "fwIoU")}
        if self.subset:
            values["subset mIoU"] = self.metrics.subset_miou(self.subset)
        if self.boundary_iou is not None:
            values["mean boundary IoU"] = _mean(self.boundary_iou)
        if self.calibration_error is not None:
            values["ECE"] = self.calibration_error
        if self.agreement is not None:
            values["agreement"] = self.agreement
        return values

    def per_class(self) -> dict[str, Sequence[float]]:
        """The values of each class, without the support."""
        values: dict[str, Sequence[float]] = {
            "IoU": self.metrics.iou,
            "Acc": self.metrics.acc,
            "Dice": self.metrics.dice,
        }
        if self.boundary_iou is not None:
            values["boundary IoU"] = self.boundary_iou
        if self.class_agreement is not None:
            values["agreement"] = self.class_agreement
        return values

    def report(self) -> str:
        """The per-class table in per cent, and the other values below it; no newline at the end."""
        columns = self.per_class()
        head = ["class", *columns, "pixels"]
        rows = [
            [name, *(percent(values[label]) for values in columns.values()), f"{self.metrics.support[label]:,}"]
            for label, name in enumerate(self.metrics.classes)
        ]
        lines = [align([head, *rows], markdown=False), ""]
        values = {name: percent(value) for name, value in self.summary().items()}
        first = ("aAcc", "mIoU", "mAcc", "mDice", "fwIoU")
        lines.append("  ".join(f"{name}: {values[name]}" for name in first))
        lines += [f"{name}: {value}" for name, value in values.items() if name not in first]
        if self.subset:
            lines.append(f"subset: {', '.join(self.subset)}")
        for name, interval in (("mIoU", self.interval), ("subset mIoU", self.subset_interval)):
            if interval is not None:
                lines.append(f"{name}, {interval_text(interval)} (bootstrap over images, n = {interval.resamples})")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """JSON-friendly; nan becomes None."""
        record = self.metrics.to_dict()
        if self.boundary_iou is not None:
            record |= {"boundary_mIoU": _plain(_mean(self.boundary_iou))}
            record |= {"boundary_IoU": [_plain(value) for value in self.boundary_iou]}
        if self.calibration_error is not None:
            record["ECE"] = self.calibration_error
        if self.agreement is not None and self.class_agreement is not None:
            record |= {"agreement": self.agreement, "class_agreement": [_plain(v) for v in self.class_agreement]}
        if self.interval is not None:
            record["mIoU_interval"] = interval_dict(self.interval)
        if self.subset:
            record |= {"subset": list(self.subset), "subset_mIoU": _plain(self.metrics.subset_miou(self.subset))}
        if self.subset_interval is not None:
            record["subset_mIoU_interval"] = interval_dict(self.subset_interval)
        return record

    def to_rows(self) -> list[Row]:
        """(metric, class or "", value), one row per number: a table that any tool can pivot."""
        rows: list[Row] = [(name, "", value) for name, value in self.summary().items()]
        for name, interval in (("mIoU", self.interval), ("subset mIoU", self.subset_interval)):
            if interval is not None:
                rows += [(f"{name} low", "", interval.low), (f"{name} high", "", interval.high)]
        columns = {**self.per_class(), "pixels": self.metrics.support}
        for name, values in columns.items():
            rows += [(name, label, float(value)) for label, value in zip(self.metrics.classes, values, strict=True)]
        return rows


@dataclass(frozen=True)
class Comparison:
    """Several evaluations on the same images; the first is what the others are compared with.

    Attributes:
        evaluations: name → evaluation.
        differences: name → mIoU minus the first's, for all but the first; of the subset's mIoU if there is a subset.
    """

    evaluations: Mapping[str, Evaluation]
    differences: Mapping[str, Difference]

    def report(self) -> str:
        """One table of the models, one of the classes' IoU with differences, in per cent."""
        first = next(iter(self.evaluations.values()))
        quantities = list(first.summary())
        target = "subset mIoU" if first.subset else "mIoU"
        head = ["model", *quantities, f"{target} 95 %", "difference", "95 %", "p"]
        rows = []
        for name, evaluation in self.evaluations.items():
            values = evaluation.summary()
            interval = evaluation.subset_interval if first.subset else evaluation.interval
            row = [name, *(percent(values.get(quantity, math.nan)) for quantity in quantities)]
            row.append("-" if interval is None else ends_text(interval))
            difference = self.differences.get(name)
            if difference is None:
                row += ["-", "-", "-"]
            else:
                ends = ends_text(difference.interval, signed=True)
                row += [_signed(difference.value), ends, f"{difference.p_value:.4f}"]
            rows.append(row)
        base = next(iter(self.evaluations))
        class_head = ["IoU", *self.evaluations, *(f"{name} - {base}" for name in self.differences)]
        class_rows = []
        for label, name in enumerate(first.metrics.classes):
            values_of = {key: evaluation.metrics.iou[label] for key, evaluation in self.evaluations.items()}
            gaps = [_signed(values_of[key] - values_of[base]) for key in self.differences]
            class_rows.append([name, *(percent(value) for value in values_of.values()), *gaps])
        tables = [align([head, *rows], markdown=False), align([class_head, *class_rows], markdown=False)]
        some = next(iter(self.differences.values())).interval
        note = (
            f"difference: {target} minus that of {base}; paired bootstrap over images, {some.resamples} resamples, "
            f"seed {some.seed}; p two-sided, each comparison by itself"
        )
        return "\n\n".join([*tables, note])

    def to_dict(self) -> dict[str, Any]:
        """JSON-friendly; nan becomes None."""
        models = {}
        for name, evaluation in self.evaluations.items():
            models[name] = evaluation.to_dict()
            difference = self.differences.get(name)
            if difference is not None:
                models[name]["difference"] = {
                    "value": _plain(difference.value),
                    "interval": interval_dict(difference.interval),
                    "p_value": difference.p_value,
                }
        return {"compared_with": next(iter(self.evaluations)), "models": models}

    def to_rows(self) -> list[tuple[str, str, str, float]]:
        """(model, metric, class or "", value), one row per number."""
        rows = []
        for name, evaluation in self.evaluations.items():
            rows += [(name, *row) for row in evaluation.to_rows()]
            difference = self.differences.get(name)
            if difference is not None:
                values = {"": difference.value, " low": difference.interval.low, " high": difference.interval.high}
                rows += [(name, f"difference{part}", "", value) for part, value in values.items()]
                rows.append((name, "p", "", difference.p_value))
        return rows


def write_result(path: str | Path, result: Evaluation | Comparison, record: Mapping[str, Any]) -> None:
    """Write a result as JSON, with `record` before it, or as CSV, by the file's suffix; whole.

    Raises:
        InputError: another suffix.
    """
    path = Path(path)
    check_suffix(path)
    if path.suffix.lower() == ".json":
        write_json(path, {**record, **result.to_dict()})
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = ["metric", "class", "value"]
    table.writerow(["model", *names] if isinstance(result, Comparison) else names)
    rows: Iterable[tuple] = result.to_rows()
    table.writerows([*row[:-1], "" if math.isnan(row[-1]) else f"{row[-1]:.10g}"] for row in rows)
    write_text(path, text.getvalue())


def check_suffix(path: Path) -> None:
    """InputError for a suffix that `write_result` does not know."""
    if path.suffix.lower() not in OUTPUT_SUFFIXES:
        raise InputError(f"{path} is to be written as what its suffix says: {' or '.join(OUTPUT_SUFFIXES)} is needed.")


def interval_dict(interval: Interval) -> dict[str, Any]:
    """A JSON-friendly dictionary."""
    return {name: _plain(value) for name, value in asdict(interval).items()}


def interval_text(interval: Interval) -> str:
    """`95 % interval 70.11 … 73.52`, in per cent."""
    return f"{100 * interval.confidence:.0f} % interval {ends_text(interval)}"


def ends_text(interval: Interval, *, signed: bool = False) -> str:
    """`70.11 … 73.52`, in per cent."""
    show = _signed if signed else percent
    return f"{show(interval.low)} … {show(interval.high)}"


def _signed(value: float) -> str:
    return "nan" if math.isnan(value) else f"{100 * value:+.2f}"


def _mean(values: Sequence[float]) -> float:
    present = [value for value in values if not math.isnan(value)]
    return math.fsum(present) / len(present) if present else math.nan


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
