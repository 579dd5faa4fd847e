"""What one evaluation found, as a value, a text, JSON and rows of a CSV; and several side by side."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dfad_seg.evaluation.bootstrap import Difference, Interval, miou_difference
from dfad_seg.evaluation.metrics import TOTALS, SegmentationMetrics, labels_named


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one model on one data set, and what else was asked for; all values are fractions.

    Attributes:
        more: further values, by name.
        by_class: further values of each class, by name; nan where a class has none.
        intervals: by what they are of: mIoU, subset mIoU.
        subset: classes that are averaged over beside all.
        counts: int64 (N, 3, C), see `resampled_miou`.
    """

    metrics: SegmentationMetrics
    more: Mapping[str, float] = field(default_factory=dict)
    by_class: Mapping[str, Sequence[float]] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    subset: Sequence[str] = ()
    counts: np.ndarray | None = None
    precision: str = "fp32"

    @property
    def mIoU(self) -> float:
        """Of all classes."""
        return self.metrics.mIoU

    def summary(self) -> dict[str, float]:
        """The values that are not per class."""
        return {name: getattr(self.metrics, name) for name in TOTALS} | dict(self.more)

    def per_class(self) -> dict[str, Sequence[float]]:
        """The values of each class, without the support."""
        return {"IoU": self.metrics.iou, "Acc": self.metrics.acc, "Dice": self.metrics.dice} | dict(self.by_class)

    def report(self) -> str:
        """The per-class table in per cent, and the other values below it; no newline at the end."""
        metrics, shown = self.metrics, self.per_class()
        rows = [["class", *shown, "pixels"]]
        for label, name in enumerate(metrics.classes):
            rows.append([name, *(percent(values[label]) for values in shown.values()), f"{metrics.support[label]:,}"])
        values = {name: percent(value) for name, value in self.summary().items()}
        lines = [align(rows), "", "  ".join(f"{name}: {values[name]}" for name in TOTALS)]
        lines += [f"{name}: {value}" for name, value in values.items() if name not in TOTALS]
        if self.subset:
            lines.append(f"subset: {', '.join(self.subset)}")
        for name, found in self.intervals.items():
            lines.append(f"{name}, 95 % interval {_ends(found)} (bootstrap over images, n = {found.resamples})")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """JSON-friendly; nan becomes None."""
        more = {**self.more, **self.by_class} | {f"{name} interval": asdict(of) for name, of in self.intervals.items()}
        found = {name.replace(" ", "_"): _plain(value) for name, value in more.items()}
        return self.metrics.to_dict() | found | ({"subset": list(self.subset)} if self.subset else {})

    def to_rows(self) -> list[dict[str, Any]]:
        """One row per number: its metric, class ("" where it is of all) and value, None for nan."""
        values = self.summary()
        for name, of in self.intervals.items():
            values |= {f"{name} low": of.low, f"{name} high": of.high}
        rows = [{"metric": name, "class": "", "value": _plain(value)} for name, value in values.items()]
        for name, column in {**self.per_class(), "pixels": self.metrics.support}.items():
            for label, value in zip(self.metrics.classes, column, strict=True):
                rows.append({"metric": name, "class": label, "value": _plain(value)})
        return rows


@dataclass(frozen=True)
class Comparison:
    """Several evaluations on the same images; the first is what the others are compared with.

    Attributes:
        evaluations: name → evaluation.
        differences: name → mIoU minus the first's, for all but the first; of the subset if there is one.
    """

    evaluations: Mapping[str, Evaluation]
    differences: Mapping[str, Difference]

    @classmethod
    def of(cls, evaluations: Mapping[str, Evaluation], resamples: int) -> "Comparison":
        """Of evaluations that have their `counts`, of the same images."""
        first, *others = evaluations
        base, counts = evaluations[first], {}
        labels = labels_named(base.subset or base.metrics.classes, base.metrics.classes)
        for name, evaluation in evaluations.items():
            assert evaluation.counts is not None
            counts[name] = evaluation.counts[:, :, labels]
        return cls(evaluations, {name: miou_difference(counts[first], counts[name], resamples) for name in others})

    def report(self) -> str:
        """One table of the models, one of the classes' IoU with differences, in per cent."""
        base, first = next(iter(self.evaluations.items()))
        target = "subset mIoU" if first.subset else "mIoU"
        rows = [["model", *first.summary(), f"{target} 95 %", "difference", "95 %", "p"]]
        for name, evaluation in self.evaluations.items():
            interval, gap = evaluation.intervals.get(target), self.differences.get(name)
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

    def to_rows(self) -> list[dict[str, Any]]:
        """Those of each model, and of its difference to the first."""
        rows = [{"model": name, **row} for name, evaluation in self.evaluations.items() for row in evaluation.to_rows()]
        for name, gap in self.differences.items():
            values = {"difference": gap.value, "difference low": gap.interval.low, "difference high": gap.interval.high}
            for metric, value in (values | {"p": gap.p_value}).items():
                rows.append({"model": name, "metric": metric, "class": "", "value": _plain(value)})
        return rows


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
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
