"""Pictures of a run: generated images with both networks' answers, and the curves of its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from dfad_seg.common.errors import InputError
from dfad_seg.evaluation.pictures import (
    Palette,
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
    """Write a PNG: for each generated image one column of image, teacher's and student's predictions.

    Above each column stands the share of pixels on which the two networks agree; below the grid a legend
    of the classes that occur. Small images are enlarged by a whole factor to at least 120 pixels of height.

    Args:
        path: of the PNG, written whole.
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
    write_png(path, framed([heading, body, legend(entries, body.shape[1])]))
