"""What one evaluation found, as a value, a text, JSON and CSV; and several side by side."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_json, write_text
from dfad_seg.evaluation.bootstrap import Difference, Interval, miou_difference
from dfad_seg.evaluation.metrics import SegmentationMetrics, nanmean
from dfad_seg.evaluation.tables import align, percent

OUTPUT_SUFFIXES = (".json", ".csv")
_FIRST = ("aAcc", "mIoU", "mAcc", "mDice", "fwIoU")


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one model on one data set, and what else was asked for; all values are fractions.

    Attributes:
        boundary_iou: of each class, or nan; None if it was not asked for, as the following.
        agreement: share of pixels with the teacher's label.
        class_agreement: of the teacher's pixels of each class, the share with the same label; or nan.
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
    precision: str = "fp32"

    @property
    def mIoU(self) -> float:
        """Of all classes."""
        return self.metrics.mIoU

    def summary(self) -> dict[str, float]:
        """The values that are not per class."""
        values = {name: getattr(self.metrics, name) for name in ("mIoU", "mAcc", "aAcc", "mDice", "fwIoU")}
        more = {
            "subset mIoU": self.metrics.subset_miou(self.subset) if self.subset else None,
            "mean boundary IoU": None if self.boundary_iou is None else nanmean(self.boundary_iou),
            "ECE": self.calibration_error,
            "agreement": self.agreement,
        }
        return values | {name: value for name, value in more.items() if value is not None}

    def per_class(self) -> dict[str, Sequence[float]]:
        """The values of each class, without the support."""
        metrics = self.metrics
        values: dict[str, Sequence[float]] = {"IoU": metrics.iou, "Acc": metrics.acc, "Dice": metrics.dice}
        more = {"boundary IoU": self.boundary_iou, "agreement": self.class_agreement}
        return values | {name: value for name, value in more.items() if value is not None}

    def intervals(self) -> dict[str, Interval]:
        """Those that there are, by what they are of."""
        found = {"mIoU": self.interval, "subset mIoU": self.subset_interval}
        return {name: interval for name, interval in found.items() if interval is not None}

    def report(self) -> str:
        """The per-class table in per cent, and the other values below it; no newline at the end."""
        columns = self.per_class()
        rows = [
            [name, *(percent(values[label]) for values in columns.values()), f"{self.metrics.support[label]:,}"]
            for label, name in enumerate(self.metrics.classes)
        ]
        values = {name: percent(value) for name, value in self.summary().items()}
        lines = [align([["class", *columns, "pixels"], *rows]), ""]
        lines.append("  ".join(f"{name}: {values[name]}" for name in _FIRST))
        lines += [f"{name}: {value}" for name, value in values.items() if name not in _FIRST]
        if self.subset:
            lines.append(f"subset: {', '.join(self.subset)}")
        lines += [
            f"{name}, {100 * interval.confidence:.0f} % interval {_ends(interval)} "
            f"(bootstrap over images, n = {interval.resamples})"
            for name, interval in self.intervals().items()
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """JSON-friendly; nan becomes None."""
        summary = self.summary()
        more: dict[str, Any] = {
            "boundary_mIoU": summary.get("mean boundary IoU"),
            "boundary_IoU": self.boundary_iou,
            "ECE": self.calibration_error,
            "agreement": self.agreement,
            "class_agreement": self.class_agreement,
            "subset": list(self.subset) or None,
            "subset_mIoU": summary.get("subset mIoU"),
        }
        more |= {f"{name.replace(' ', '_')}_interval": asdict(of) for name, of in self.intervals().items()}
        return self.metrics.to_dict() | {key: _plain(value) for key, value in more.items() if value is not None}

    def to_rows(self) -> list[tuple[str, str, float]]:
        """(metric, class or "", value), one row per number: a table that any tool can pivot."""
        rows = [(name, "", value) for name, value in self.summary().items()]
        for name, interval in self.intervals().items():
            rows += [(f"{name} low", "", interval.low), (f"{name} high", "", interval.high)]
        for name, values in {**self.per_class(), "pixels": self.metrics.support}.items():
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

    @classmethod
    def of(cls, evaluations: Mapping[str, Evaluation], resamples: int) -> Comparison:
        """Of evaluations that have their `counts`, of the same images."""
        first, *others = evaluations
        base = evaluations[first]
        labels = [base.metrics.classes.index(name) for name in base.subset] or None
        counts: dict[str, Any] = {name: evaluation.counts for name, evaluation in evaluations.items()}
        gaps = {n: miou_difference(counts[first], counts[n], resamples=resamples, subset=labels) for n in others}
        return cls(evaluations, gaps)

    def report(self) -> str:
        """One table of the models, one of the classes' IoU with differences, in per cent."""
        base, first = next(iter(self.evaluations.items()))
        target = "subset mIoU" if first.subset else "mIoU"
        rows = [["model", *first.summary(), f"{target} 95 %", "difference", "95 %", "p"]]
        for name, evaluation in self.evaluations.items():
            interval = evaluation.intervals().get(target)
            row = [name, *map(percent, evaluation.summary().values()), "-" if interval is None else _ends(interval)]
            gap = self.differences.get(name)
            more = ["-", "-", "-"]
            if gap is not None:
                more = [percent(gap.value, signed=True), _ends(gap.interval, signed=True), f"{gap.p_value:.4f}"]
            rows.append(row + more)
        classes = [["IoU", *self.evaluations, *(f"{name} - {base}" for name in self.differences)]]
        for label, name in enumerate(first.metrics.classes):
            values = {key: evaluation.metrics.iou[label] for key, evaluation in self.evaluations.items()}
            gaps = (percent(values[key] - values[base], signed=True) for key in self.differences)
            classes.append([name, *map(percent, values.values()), *gaps])
        some = next(iter(self.differences.values())).interval
        note = (
            f"difference: {target} minus that of {base}; paired bootstrap over images, {some.resamples} resamples, "
            f"seed {some.seed}; p two-sided, each comparison by itself"
        )
        return "\n\n".join([align(rows), align(classes), note])

    def to_dict(self) -> dict[str, Any]:
        """JSON-friendly; nan becomes None."""
        models = {name: evaluation.to_dict() for name, evaluation in self.evaluations.items()}
        for name, difference in self.differences.items():
            models[name]["difference"] = _plain(asdict(difference))
        return {"compared_with": next(iter(self.evaluations)), "models": models}

    def to_rows(self) -> list[tuple[str, str, str, float]]:
        """(model, metric, class or "", value), one row per number."""
        rows = [(name, *row) for name, evaluation in self.evaluations.items() for row in evaluation.to_rows()]
        for name, gap in self.differences.items():
            values = {"difference": gap.value, "difference low": gap.interval.low, "difference high": gap.interval.high}
            rows += [(name, metric, "", value) for metric, value in (values | {"p": gap.p_value}).items()]
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
    table.writerow([*(["model"] if isinstance(result, Comparison) else []), "metric", "class", "value"])
    rows: Sequence[tuple] = result.to_rows()
    table.writerows([*row[:-1], "" if math.isnan(row[-1]) else f"{row[-1]:.10g}"] for row in rows)
    write_text(path, text.getvalue())


def check_suffix(path: Path) -> None:
    """InputError for a suffix that `write_result` does not know."""
    if path.suffix.lower() not in OUTPUT_SUFFIXES:
        raise InputError(f"{path} is to be written as what its suffix says: {' or '.join(OUTPUT_SUFFIXES)} is needed.")


def _ends(interval: Interval, *, signed: bool = False) -> str:
    """`70.11 … 73.52`, in per cent."""
    return f"{percent(interval.low, signed=signed)} … {percent(interval.high, signed=signed)}"


def _plain(value: Any) -> Any:
    """The same without nan, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
