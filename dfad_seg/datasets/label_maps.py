"""A folder of label maps without images: layouts for the generator from a simulator or a drawing program."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dfad_seg.common.errors import InputError
from dfad_seg.common.images import IndexReader
from dfad_seg.datasets.listing import list_images

NO_CLASS = 255
MOST_PIXELS = 2**28
"""Of all maps together; they stay in memory, a byte per pixel."""


def read_label_maps(folder: str | Path, num_classes: int) -> np.ndarray:
    """All label maps of a folder, in the order of their names, as uint8 (K, H, W).

    Args:
        folder: index masks (8-bit grey or palette) of one size, whose values are class ids in the teacher's order.
        num_classes: C; the value C and higher ones stand for no class and become `NO_CLASS`.

    Raises:
        InputError: missing, empty, unreadable, of different sizes, too large, or without a pixel of any class.
    """
    folder = Path(folder)
    paths = list(list_images(folder, "label map").files.values())
    first = IndexReader().read(paths[0])
    if len(paths) * first.size > MOST_PIXELS:
        raise InputError(
            f"the {len(paths)} label maps in {folder} are of {first.shape[1]}x{first.shape[0]} pixels, together more "
            f"than the {MOST_PIXELS // 10**6} million that are kept in memory. Use fewer or smaller ones."
        )
    maps = np.empty((len(paths), *first.shape), dtype=np.uint8)
    for place, path in enumerate(paths):
        found = first if place == 0 else IndexReader().read(path)
        if found.shape != first.shape:
            raise InputError(
                f"the label maps in {folder} must have one size: {paths[0].name} is {first.shape[1]}x{first.shape[0]}, "
                f"{path.name} is {found.shape[1]}x{found.shape[0]}."
            )
        maps[place] = np.where(found < num_classes, found, NO_CLASS)
    if (maps == NO_CLASS).all():
        raise InputError(
            f"the label maps in {folder} have no pixel of any class: their values are all {num_classes} or higher, and "
            f"the {num_classes} classes are 0 to {num_classes - 1}."
        )
    return maps
