"""Pictures of a run: generated images with both networks' answers, and the curves of its metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_whole
from dfad_seg.evaluation.pictures import (
    Palette,
    Picture,
    as_picture,
    beside,
    blank,
    captioned,
    colourise,
    enlarge,
    framed,
    legend,
    present,
    stacked,
    text_width,
    write_line,
    write_png,
)

Curve = tuple[list[float], list[float]]


def generated_grid(
    path: str | Path,
    images: Tensor,
    teacher_labels: Tensor,
    student_labels: Tensor,
    palette: Palette,
    classes: Sequence[str],
    title: str,
    *,
    limit: int = 8,
) -> None:
    """Write `draw_generated` as a PNG, whole; arguments and errors are its."""
    write_png(path, draw_generated(images, teacher_labels, student_labels, palette, classes, title, limit=limit))


def draw_generated(
    images: Tensor,
    teacher_labels: Tensor,
    student_labels: Tensor,
    palette: Palette,
    classes: Sequence[str],
    title: str,
    *,
    limit: int = 8,
) -> Picture:
    """For each generated image one column of image, teacher's answer and student's answer, as uint8 RGB (H, W, 3).

    Above each column stands the share of pixels on which the two networks agree; below the grid a legend
    of the classes that occur. Small images are enlarged by a whole factor to at least 120 pixels of height.

    Args:
        images: `(N, 3, H, W)` in [0, 1].
        teacher_labels: integer labels `(N, H, W)`.
        student_labels: integer labels `(N, H, W)`.
        palette: RGB colour of each class.
        classes: class names, in label order.
        title: the line on top.
        limit: how many of the images are shown.

    Raises:
        InputError: there is no image, or images and answers differ in number or size.
    """
    sizes = [tuple(labels.shape) for labels in (teacher_labels, student_labels)]
    expected = (len(images), *images.shape[2:])
    if len(images) == 0 or sizes != [expected, expected]:
        raise InputError(
            f"a grid of generated images {tuple(images.shape)} needs at least one image and answers of "
            f"shape {expected}, got {sizes}."
        )
    shown = min(limit, len(images))
    columns = []
    for image, teacher, student in zip(
        images[:shown].float(), teacher_labels[:shown], student_labels[:shown], strict=True
    ):
        agreement = (teacher == student).double().mean().item()
        tiles = [as_picture(image), colourise(teacher, palette), colourise(student, palette)]
        column = stacked([enlarge(tile, 120) for tile in tiles], gap=4)
        columns.append(captioned(column, f"{100 * agreement:.0f} % agree"))
    tile_height = enlarge(as_picture(images[0].float()), 120).shape[0]
    names = ["generated", "teacher", "student"]
    headers = blank(columns[0].shape[0], max(map(text_width, names)))
    top = columns[0].shape[0] - 3 * tile_height - 8
    for row, name in enumerate(names):
        middle = top + row * (tile_height + 4) + tile_height // 2
        write_line(headers[middle - 12 : middle + 12], name, x=0)
    body = beside([headers, *columns])
    heading = blank(24, max(body.shape[1], text_width(title)))
    write_line(heading, title, x=0)
    labels = present(len(classes), teacher_labels[:shown], student_labels[:shown])
    entries = [(classes[label], palette[label]) for label in labels]
    return framed([heading, body, legend(entries, body.shape[1])])


def curves(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a PNG of a run's curves over its steps: mIoU, each loss on its own, learning rates, and the game's meters.

    Args:
        path: the PNG file, written whole.
        records: lines of `metrics.jsonl`: dictionaries with "step" and any of "…/mIoU", "train/…loss", "train/…lr",
            "train/…agreement" and "train/…class_entropy". Values that are missing, null or not finite
            are left out; of two values for one step, as a resumed run may have, the later one counts.
    """
    # Imported here: matplotlib takes most of a second, and most callers of this module draw no curve.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    series = _series(records)
    losses = sorted(key for key in series if key.startswith("train/") and key.endswith("loss"))
    rates = sorted(key for key in series if key.startswith("train/") and key.endswith("lr"))
    scores = sorted(key for key in series if key.endswith("/mIoU"))
    meters = sorted(key for key in series if key.endswith(("_agreement", "_class_entropy")))
    groups = [("mIoU", scores)] if scores else []
    groups += [(key.removeprefix("train/"), [key]) for key in losses]
    groups += [("on generated images", meters)] if meters else []
    groups += [("learning rate", rates)] if rates else []

    rows = max(1, math.ceil(len(groups) / 2))
    figure = Figure(figsize=(11, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    if not groups:
        figure.text(0.5, 0.5, "nothing recorded yet", ha="center", va="center", color="grey")
    for number, (title, keys) in enumerate(groups, start=1):
        shared = figure.axes[0] if figure.axes else None
        axes = figure.add_subplot(rows, min(2, len(groups)), number, sharex=shared)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        for key in keys:
            _draw(axes, key, series[key], smooth=key in losses)
        if title == "mIoU":
            axes.set_ylim(bottom=0)
        elif title == "on generated images":
            axes.set_ylim(0, 1.02)
        elif title == "learning rate" and all(min(series[key][1]) > 0 for key in keys):
            axes.set_yscale("log")
        if keys[0] not in losses:
            axes.legend(fontsize=8, loc="best")
    write_whole(path, lambda handle: figure.savefig(handle, format="png", dpi=110))


def _series(records: Iterable[Mapping[str, Any]]) -> dict[str, Curve]:
    """key → (steps, values), steps ascending, finite values only."""
    values: dict[str, dict[float, float]] = {}
    for record in records:
        step = record.get("step")
        if step is None or not _is_finite(step):
            continue
        for key, value in record.items():
            if key != "step" and _is_finite(value):
                values.setdefault(key, {})[step] = float(value)
    ordered = {key: sorted(points.items()) for key, points in values.items()}
    return {key: ([s for s, _ in points], [v for _, v in points]) for key, points in ordered.items()}


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _draw(axes: Any, key: str, curve: Curve, *, smooth: bool) -> None:
    steps, values = curve
    label = key.split("/", 1)[1]
    window = len(values) // 40
    if not smooth or window < 2:
        axes.plot(steps, values, marker="o" if len(values) <= 60 else None, markersize=3, label=label)
        return
    # Adversarial losses jump: the raw curve stays pale behind its running mean, which starts and ends
    # half a window inside so that every mean is taken over a whole window.
    [line] = axes.plot(steps, values, alpha=0.3, linewidth=0.8)
    mean = np.convolve(values, np.ones(window) / window, mode="valid")
    start = (window - 1) // 2
    axes.plot(steps[start : start + len(mean)], mean, color=line.get_color(), label=label)
