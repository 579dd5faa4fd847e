"""A run's generator by class: how far the teacher sees what the layouts ask for, and pictures of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_json
from dfad_seg.config import load_config
from dfad_seg.distill import batch_norm_mode
from dfad_seg.distill.seeds import iteration_rng
from dfad_seg.evaluation import ConfusionMatrix
from dfad_seg.evaluation.pictures import (
    Palette,
    as_picture,
    beside,
    blank,
    colourise,
    enlarge,
    framed,
    legend,
    stacked,
    text_width,
    write_line,
    write_png,
)
from dfad_seg.evaluation.tables import align, percent
from dfad_seg.generators import LayoutGenerator
from dfad_seg.recipes.build import build_teacher, meta_info
from dfad_seg.recipes.calibration import load_generator

BATCH = 8
TILE = 96
"""Least height of a picture in the sheet."""


class _Example(NamedTuple):
    area: int
    image: Tensor
    layout: Tensor
    answer: Tensor


def generator_sheet(
    run: str | Path,
    out: str | Path,
    *,
    count: int = 128,
    columns: int = 5,
    size: tuple[int, int] | None = None,
    teacher: str | Path | None = None,
) -> str:
    """Draw images with a run's newest generator and ask the teacher what it sees.

    Writes `out`, a PNG with a row of examples per class (image, layout and the teacher's answer, of those images whose
    layout holds most of the class), and beside it a JSON file with, per class, `layout` and `answer`, its shares of the
    pixels of layouts and answers, and `seen`, the share of its layout pixels on which the teacher answers it.

    Args:
        run: run directory of a distillation with a layout generator.
        out: the PNG file.
        count: images, rounded up to whole batches of 8.
        columns: examples per class.
        size: (H, W); default: the run's `image_size`.
        teacher: its file, if it is no longer where the run's config says.

    Returns:
        The JSON's numbers as a Markdown table.

    Raises:
        InputError: the run has no trained layout generator, or its teacher is gone.
    """
    out = Path(out)
    if out.suffix.lower() != ".png":
        raise InputError(f"the sheet is a PNG picture, and {out} does not end in .png.")
    changes = [] if teacher is None else [f"teacher.checkpoint={teacher}"]
    config = load_config(Path(run) / "config.yaml", changes)
    info = meta_info(config)
    _, generator = load_generator(run, info.num_classes)
    if not isinstance(generator, LayoutGenerator):
        raise InputError(f"{run}: its generator takes no layouts, so there is nothing to compare. Needed: type layout.")
    network = build_teacher(config, info)
    height, width = size or config.image_size
    rng = iteration_rng(config.seed, 0, 0, torch.device("cpu"), "preview")
    matrix = ConfusionMatrix(info.num_classes)
    examples: list[list[_Example]] = [[] for _ in range(info.num_classes)]
    batches = -(-count // BATCH)
    for _ in range(batches):
        latents = generator.sample(BATCH, (height, width), rng)
        with torch.no_grad(), batch_norm_mode(generator, "batch"):
            images = generator(latents)
            answers = network(images).argmax(dim=1)
        matrix.update(answers, latents.layout)
        for label, best in enumerate(examples):
            areas = (latents.layout == label).flatten(1).sum(dim=1).tolist()
            best += map(_Example, map(int, areas), images, latents.layout, answers)
            best.sort(key=lambda example: -example.area)
            del best[columns:]
    counts = matrix.compute().double()
    rows = {
        "layout": counts.sum(dim=1) / counts.sum(),
        "answer": counts.sum(dim=0) / counts.sum(),
        "seen": counts.diag() / counts.sum(dim=1),
    }
    overall = (counts.diag().sum() / counts.sum()).item()
    numbers = {
        name: {key: None if values[i].isnan() else values[i].item() for key, values in rows.items()}
        for i, name in enumerate(info.classes)
    }
    _draw(out, examples, info.classes, info.palette)
    record = {"run": str(run), "images": batches * BATCH, "size": [height, width], "seen": overall}
    write_json(out.with_suffix(".json"), record | {"classes": numbers})
    table = [["class", "of the layouts", "of the answers", "seen as asked"]]
    for i, name in enumerate(info.classes):
        table.append([name, *(percent(values[i].item()) for values in rows.values())])
    return align([*table, ["all", "100.0", "100.0", percent(overall)]], markdown=True) + "\n"


def _draw(path: Path, examples: Sequence[Sequence[_Example]], classes: Sequence[str], palette: Palette) -> None:
    labels = max(map(text_width, classes))
    rows = []
    for name, best in zip(classes, examples, strict=True):
        columns = [
            stacked(
                [
                    enlarge(picture, TILE)
                    for picture in (
                        as_picture(example.image),
                        colourise(example.layout, palette),
                        colourise(example.answer, palette),
                    )
                ],
                gap=2,
            )
            for example in best
        ]
        header = blank(24, labels)
        write_line(header, name, x=0)
        rows.append(beside([header, *columns]))
    half = -(-len(rows) // 2)
    body = beside([stacked(part, gap=8) for part in (rows[:half], rows[half:]) if part])
    title = blank(24, body.shape[1])
    write_line(title, "from top to bottom: generated image, layout, teacher's answer", x=0)
    write_png(path, framed([title, body, legend(zip(classes, palette, strict=True), body.shape[1])]))
