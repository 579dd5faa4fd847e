"""Tables in plain text that copies well, and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter

from dfad_seg.common.errors import InputError, choose
from dfad_seg.evaluation.metrics import SegmentationMetrics


def format_comparison(
    columns: Mapping[str, SegmentationMetrics],
    reference: str = "teacher",
    student: str = "student",
    *,
    markdown: bool = False,
) -> str:
    """Per-class IoU in percent, one column for each model, and the share of the reference recovered.

    The share is (student − constant) / (reference − constant), where the constant prediction is that of the most
    frequent class everywhere: a student that has learnt nothing more has recovered nothing.

    Args:
        columns: model name → its metrics on one data set, in the order of the table's columns.
        reference: the column that `recovered` is measured against.
        student: the column whose share is shown as `recovered`; `-` where that is undefined.
        markdown: a Markdown table instead of plain text.

    Raises:
        InputError: a column is missing, or the models were evaluated on different classes.
    """
    base, best = choose(dict(columns), reference, "column"), choose(dict(columns), student, "column")
    for name, metrics in columns.items():
        if metrics.classes != base.classes:
            raise InputError(
                f"'{name}' was evaluated on the classes {', '.join(metrics.classes)}, but '{reference}' on "
                f"{', '.join(base.classes)}; a comparison needs the same data set."
            )
    models = [best, base, base.constant()]

    def row(name: str, values: Callable[[SegmentationMetrics], float]) -> list[str]:
        share = recovered(*map(values, models))
        cells = [percent(values(metrics)) for metrics in columns.values()]
        return [name, *cells, "-" if math.isnan(share) else f"{100 * share:.1f} %"]

    body = [row(name, partial(_iou, label)) for label, name in enumerate(base.classes)]
    summary = [row(key, attrgetter(key)) for key in ("mIoU", "mAcc", "aAcc")]
    return align([["IoU", *columns, "recovered"], *body], summary, markdown=markdown)


def _iou(label: int, metrics: SegmentationMetrics) -> float:
    return metrics.iou[label]


def recovered(value: float, reference: float, constant: float) -> float:
    """The share of what the reference is better than the constant prediction; nan where it is not better."""
    constant = 0.0 if math.isnan(constant) else constant
    return (value - constant) / (reference - constant) if reference > constant else math.nan


def percent(value: float, *, signed: bool = False) -> str:
    """A fraction in per cent with two decimals, or `nan`."""
    return "nan" if math.isnan(value) else f"{100 * value:+.2f}" if signed else f"{100 * value:.2f}"


def align(body: Sequence[Sequence[str]], summary: Sequence[Sequence[str]] = (), *, markdown: bool = False) -> str:
    """Align the cells: the first column to the left, all others to the right."""
    if markdown:
        body = [[cell.replace("|", r"\|") for cell in row] for row in body]
    lines = [*body, *summary]
    widths = [max(len(row[index]) for row in lines) for index in range(len(lines[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return f"| {' | '.join(cells)} |" if markdown else "  ".join(cells).rstrip()

    if markdown:
        # A Markdown column needs three dashes at least; the colon aligns it to the right.
        dashes = ["-" * max(3, widths[0]), *("-" * max(2, width - 1) + ":" for width in widths[1:])]
        return "\n".join([line(body[0]), f"| {' | '.join(dashes)} |", *map(line, [*body[1:], *summary])])
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    blocks = [line(body[0]), rule, *map(line, body[1:])]
    return "\n".join([*blocks, rule, *map(line, summary)] if summary else blocks)
