"""What one evaluation found, as a value, a text and JSON; and several side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dfad_seg.evaluation.bootstrap import Difference, Interval, miou_difference
from dfad_seg.evaluation.metrics import SegmentationMetrics, nanmean

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
    agreement: float | None = None
    class_agreement: tuple[float, ...] | None = None
    interval: Interval | None = None
    counts: np.ndarray | None = None
    precision: str = "fp32"

    @property
    def mIoU(self) -> float:
        """Of all classes."""
        return self.metrics.mIoU

    def summary(self) -> dict[str, float]:
        """The values that are not per class."""
        values = {name: getattr(self.metrics, name) for name in _FIRST}
        if self.boundary_iou is not None:
            values["mean boundary IoU"] = nanmean(self.boundary_iou)
        return values if self.agreement is None else values | {"agreement": self.agreement}

    def report(self) -> str:
        """The per-class table in per cent, and the other values below it; no newline at the end."""
        metrics = self.metrics
        columns: dict[str, Sequence[float] | None] = {"IoU": metrics.iou, "Acc": metrics.acc, "Dice": metrics.dice}
        columns |= {"boundary IoU": self.boundary_iou, "agreement": self.class_agreement}
        shown = {name: values for name, values in columns.items() if values is not None}
        rows = [["class", *shown, "pixels"]]
        for label, name in enumerate(metrics.classes):
            rows.append([name, *(percent(values[label]) for values in shown.values()), f"{metrics.support[label]:,}"])
        values = {name: percent(value) for name, value in self.summary().items()}
        lines = [align(rows), "", "  ".join(f"{name}: {values[name]}" for name in _FIRST)]
        lines += [f"{name}: {value}" for name, value in values.items() if name not in _FIRST]
        if (found := self.interval) is not None:
            lines.append(f"mIoU, 95 % interval {_ends(found)} (bootstrap over images, n = {found.resamples})")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """JSON-friendly; nan becomes None."""
        more: dict[str, Any] = {
            "boundary_mIoU": self.summary().get("mean boundary IoU"),
            "boundary_IoU": self.boundary_iou,
            "agreement": self.agreement,
            "class_agreement": self.class_agreement,
            "mIoU_interval": None if self.interval is None else asdict(self.interval),
        }
        return self.metrics.to_dict() | {key: _plain(value) for key, value in more.items() if value is not None}


@dataclass(frozen=True)
class Comparison:
    """Several evaluations on the same images; the first is what the others are compared with.

    Attributes:
        evaluations: name → evaluation.
        differences: name → mIoU minus the first's, for all but the first.
    """

    evaluations: Mapping[str, Evaluation]
    differences: Mapping[str, Difference]

    @classmethod
    def of(cls, evaluations: Mapping[str, Evaluation], resamples: int) -> Comparison:
        """Of evaluations that have their `counts`, of the same images."""
        first, *others = evaluations
        counts: dict[str, Any] = {name: evaluation.counts for name, evaluation in evaluations.items()}
        return cls(evaluations, {name: miou_difference(counts[first], counts[name], resamples) for name in others})

    def report(self) -> str:
        """One table of the models, one of the classes' IoU with differences, in per cent."""
        base, first = next(iter(self.evaluations.items()))
        rows = [["model", *first.summary(), "mIoU 95 %", "difference", "95 %", "p"]]
        for name, evaluation in self.evaluations.items():
            interval, gap = evaluation.interval, self.differences.get(name)
            row = [name, *map(percent, evaluation.summary().values()), "-" if interval is None else _ends(interval)]
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
            f"difference: mIoU minus that of {base}; paired bootstrap over images, {some.resamples} resamples, "
            f"seed {some.seed}; p two-sided, each comparison by itself"
        )
        return "\n\n".join([align(rows), align(classes), note])

    def to_dict(self) -> dict[str, Any]:
        """JSON-friendly; nan becomes None."""
        models = {name: evaluation.to_dict() for name, evaluation in self.evaluations.items()}
        for name, difference in self.differences.items():
            models[name]["difference"] = _plain(asdict(difference))
        return {"compared_with": next(iter(self.evaluations)), "models": models}


def percent(value: float, *, signed: bool = False) -> str:
    """A fraction in per cent with two decimals, or `nan`."""
    return "nan" if math.isnan(value) else f"{100 * value:+.2f}" if signed else f"{100 * value:.2f}"


def align(body: Sequence[Sequence[str]], summary: Sequence[Sequence[str]] = ()) -> str:
    """A table of plain text that copies well: the first column to the left, all others to the right."""
    rows = [*body, *summary]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [line(body[0]), rule, *map(line, body[1:])]
    return "\n".join([*lines, rule, *map(line, summary)] if summary else lines)


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
