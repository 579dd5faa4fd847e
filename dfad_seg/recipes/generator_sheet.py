"""A trained generator by class: what it makes of each, and how far the teacher sees what the layouts ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from dfad_seg.common.labels import labels_of
from dfad_seg.distill import batch_norm_mode
from dfad_seg.distill.seeds import iteration_rng
from dfad_seg.evaluation.pictures import Palette, as_picture, beside, captioned, colourise, enlarge, framed, write_png
from dfad_seg.evaluation.pictures import stacked as in_column
from dfad_seg.generators import ImageGenerator, LayoutGenerator

BATCHES, BATCH = 8, 8
ROW = 6
"""Classes side by side."""


def write_generator_sheet(
    path: Path,
    generator: ImageGenerator,
    teacher: nn.Module,
    *,
    size: tuple[int, int],
    seed: int,
    classes: Sequence[str],
    palette: Palette,
) -> dict[str, float | None]:
    """Draw, for each class, the generated image whose layout holds most of it, the layout, and the teacher's labels.

    Returns:
        By class, the share of its layout pixels where the teacher sees it; None where no layout has it. Empty, and
        nothing is drawn, for a generator without layouts.
    """
    if not isinstance(generator, LayoutGenerator):
        return {}
    device = next(teacher.parameters()).device
    rng = iteration_rng(seed, 0, 0, device, "preview")
    hits, asked = torch.zeros(len(classes)), torch.zeros(len(classes))
    best: dict[int, tuple[float, list]] = {}
    for _ in range(BATCHES):
        latents = generator.sample(BATCH, size, rng)
        layouts = latents.layout
        with torch.no_grad(), batch_norm_mode(generator, "batch"):
            images = generator(latents)
            labels = labels_of(teacher(images))
        for label in range(len(classes)):
            here = layouts == label
            asked[label] += here.sum().cpu()
            hits[label] += (here & (labels == label)).sum().cpu()
            area, place = here.flatten(1).float().mean(dim=1).max(dim=0)
            if area > best.get(label, (0.0, []))[0]:
                found = [as_picture(images[place]), *(colourise(map_[place], palette) for map_ in (layouts, labels))]
                best[label] = float(area), found
    seen = {name: float(hits[i] / asked[i]) if asked[i] else None for i, name in enumerate(classes)}
    columns = [
        captioned(in_column([enlarge(picture, 96) for picture in pictures], gap=2), classes[label])
        for label, (_, pictures) in sorted(best.items())
    ]
    rows = [beside(columns[start : start + ROW]) for start in range(0, len(columns), ROW)]
    write_png(path, framed(rows))
    return seen
