"""Masks of colours: what CamVid's original release means by its 32, and how colours become labels."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dfad_seg.common.errors import InputError
from dfad_seg.common.palette import Colour

CAMVID_COLOURS: dict[str, dict[str, Colour]] = {
    "sky": {"Sky": (128, 128, 128)},
    "building": {
        "Building": (128, 0, 0), "Wall": (64, 192, 0), "Bridge": (0, 128, 64), "Tunnel": (64, 0, 64),
        "Archway": (192, 0, 128),
    },
    "pole": {"Column_Pole": (192, 192, 128), "TrafficCone": (0, 0, 64)},
    "road": {"Road": (128, 64, 128), "LaneMkgsDriv": (128, 0, 192), "LaneMkgsNonDriv": (192, 0, 64)},
    "pavement": {"Sidewalk": (0, 0, 192), "ParkingBlock": (64, 192, 128), "RoadShoulder": (128, 128, 192)},
    "tree": {"Tree": (128, 128, 0), "VegetationMisc": (192, 192, 0)},
    "sign": {"SignSymbol": (192, 128, 128), "Misc_Text": (128, 128, 64), "TrafficLight": (0, 64, 64)},
    "fence": {"Fence": (64, 64, 128)},
    "car": {
        "Car": (64, 0, 128), "SUVPickupTruck": (64, 128, 192), "Truck_Bus": (192, 128, 192), "Train": (192, 64, 128),
        "OtherMoving": (128, 64, 64),
    },
    "pedestrian": {
        "Pedestrian": (64, 64, 0), "Child": (192, 128, 64), "CartLuggagePram": (64, 0, 192), "Animal": (64, 128, 64),
    },
    "bicyclist": {"Bicyclist": (0, 128, 192), "MotorcycleScooter": (192, 0, 192)},
    "void": {"Void": (0, 0, 0)},
}  # fmt: skip
"""CamVid's class → the classes of the original release in it, with their RGB colours in `LabeledApproved_full` (the
release's `label_colors.txt`). It is the usual grouping; `Void` is the only original class that is ignored."""

_UNKNOWN = 254


def labels_by_colour(colours: np.ndarray, labels: Mapping[Colour, int], path: Path, known: str) -> np.ndarray:
    """The label, uint8 (H, W), of each pixel of a mask of colours.

    Args:
        colours: uint8 (H, W, 3), RGB.
        labels: colour → label, 0-253 or 255.
        path: the file, and `known`: what its colours are, for messages.

    Raises:
        InputError: a pixel has another colour.
    """
    codes = colours.astype(np.int32) @ np.array((1 << 16, 1 << 8, 1), np.int32)
    found = _table(tuple(labels.items()))[codes]
    if (found == _UNKNOWN).any():
        row, column = np.argwhere(found == _UNKNOWN)[0]
        colour = tuple(int(value) for value in colours[row, column])
        raise InputError(f"mask {path} has colour {colour} at row {row}, column {column}; it is none of {known}.")
    return found


@functools.lru_cache(maxsize=4)
def _table(labels: tuple[tuple[Colour, int], ...]) -> np.ndarray:
    table = np.full(1 << 24, _UNKNOWN, np.uint8)
    for (red, green, blue), label in labels:
        table[red << 16 | green << 8 | blue] = label
    return table
