"""Per-class tables in plain text that copies well, and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dfad_seg.common.errors import InputError, choose
from dfad_seg.evaluation.metrics import SegmentationMetrics


def format_table(metrics: SegmentationMetrics, *, markdown: bool = False) -> str:
    """One row per class (IoU and Acc in percent, pixels of truth) and the summary line of MMSegmentation.

    An undefined value (see `SegmentationMetrics`) is shown as `nan`. The text has no trailing newline.
    """
    rows = [
        [name, percent(iou), percent(acc), f"{support:,}"]
        for name, iou, acc, support in zip(metrics.classes, metrics.iou, metrics.acc, metrics.support, strict=True)
    ]
    table = align([["class", "IoU", "Acc", "pixels"], *rows], markdown=markdown)
    return f"{table}\n\n{format_summary(metrics)}"


def format_summary(metrics: SegmentationMetrics) -> str:
    """`aAcc: 93.61  mIoU: 72.04  mAcc: 80.15`, in percent."""
    return "  ".join(f"{key}: {percent(getattr(metrics, key))}" for key in ("aAcc", "mIoU", "mAcc"))


def format_comparison(
    columns: Mapping[str, SegmentationMetrics],
    reference: str = "teacher",
    student: str = "student",
    *,
    markdown: bool = False,
) -> str:
    """Per-class IoU in percent, one column for each model, and the share of the reference recovered.

    Args:
        columns: model name → its metrics on one data set, in the order of the table's columns.
        reference: the column that `recovered` is measured against.
        student: the column whose IoU / reference IoU is shown as `recovered`; `-` where that is undefined.
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
    rows = [
        [name, *(percent(metrics.iou[label]) for metrics in columns.values()),
         _share(best.iou[label], base.iou[label])]
        for label, name in enumerate(base.classes)
    ]  # fmt: skip
    summary = [
        [key, *(percent(getattr(metrics, key)) for metrics in columns.values()),
         _share(getattr(best, key), getattr(base, key))]
        for key in ("mIoU", "mAcc", "aAcc")
    ]  # fmt: skip
    return align([["IoU", *columns, "recovered"], *rows], summary, markdown=markdown)


def percent(value: float) -> str:
    """A fraction in per cent with two decimals, or `nan`."""
    return "nan" if math.isnan(value) else f"{100 * value:.2f}"


def _share(value: float, reference: float) -> str:
    if math.isnan(value) or math.isnan(reference) or reference == 0:
        return "-"
    return f"{100 * value / reference:.1f} %"


def align(body: Sequence[Sequence[str]], summary: Sequence[Sequence[str]] = (), *, markdown: bool) -> str:
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
