"""Pictures of what a generator makes, on the way and by class at the end."""

from pathlib import Path

import torch
from torch import Tensor, nn

from dfad_seg.common.labels import labels_of
from dfad_seg.datasets import MetaInfo
from dfad_seg.distill import batch_norm_mode
from dfad_seg.distill.seeds import iteration_rng
from dfad_seg.evaluation import pictures
from dfad_seg.generators import ImageGenerator, LayoutGenerator

BATCHES, BATCH = 8, 8
ROW = 6
"""Classes side by side."""


def generated_picture(
    images: Tensor, teacher_labels: Tensor, student_labels: Tensor, title: str, info: MetaInfo
) -> pictures.Picture:
    """Generated images (N, 3, H, W) in [0, 1] above both networks' predictions of them (N, H, W), with a legend."""
    classes, palette = info.classes, info.palette
    same = ", ".join(f"{share:.0%}" for share in (teacher_labels == student_labels).flatten(1).float().mean(1))
    rows = {
        title: [pictures.as_picture(image.float()) for image in images],
        "teacher's predictions": [pictures.colourise(labels, palette) for labels in teacher_labels],
        f"student's predictions, the same on {same} of the pixels": [
            pictures.colourise(labels, palette) for labels in student_labels
        ],
    }
    strips = [
        pictures.captioned(pictures.beside([pictures.enlarge(tile, 120) for tile in tiles]), name)
        for name, tiles in rows.items()
    ]
    found = pictures.present(len(classes), teacher_labels, student_labels)
    entries = [(classes[label], palette[label]) for label in found]
    return pictures.framed([*strips, pictures.legend(entries, strips[0].shape[1])])


def write_generator_sheet(
    path: Path, generator: ImageGenerator, teacher: nn.Module, size: tuple[int, int], seed: int, info: MetaInfo
) -> dict[str, float | None]:
    """Draw, for each class, the generated image whose layout holds most of it, the layout, and the teacher's labels.

    Returns:
        By class, the share of its layout pixels where the teacher sees it; None where no layout has it. Empty, and
        nothing is drawn, for a generator without layouts.
    """
    if not isinstance(generator, LayoutGenerator):
        return {}
    device, classes, palette = next(teacher.parameters()).device, info.classes, info.palette
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
                maps = (pictures.colourise(map_[place], palette) for map_ in (layouts, labels))
                best[label] = float(area), [pictures.as_picture(images[place]), *maps]
    seen = {name: float(hits[i] / asked[i]) if asked[i] else None for i, name in enumerate(classes)}
    columns = [
        pictures.captioned(pictures.stacked([pictures.enlarge(tile, 96) for tile in tiles], gap=2), classes[label])
        for label, (_, tiles) in sorted(best.items())
    ]
    rows = [pictures.beside(columns[start : start + ROW]) for start in range(0, len(columns), ROW)]
    pictures.write_png(path, pictures.framed(rows))
    return seen
