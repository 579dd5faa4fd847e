"""From the colours of CamVid's original release (32 classes) to the labels of the 11-class grouping."""

from __future__ import annotations

import numpy as np

from dfad_seg.datasets.metainfo import CAMVID

ORIGINAL_COLOURS: dict[str, tuple[int, int, int]] = {
    "Animal": (64, 128, 64),
    "Archway": (192, 0, 128),
    "Bicyclist": (0, 128, 192),
    "Bridge": (0, 128, 64),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "CartLuggagePram": (64, 0, 192),
    "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128),
    "Fence": (64, 64, 128),
    "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64),
    "Misc_Text": (128, 128, 64),
    "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64),
    "ParkingBlock": (64, 192, 128),
    "Pedestrian": (64, 64, 0),
    "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192),
    "Sidewalk": (0, 0, 192),
    "SignSymbol": (192, 128, 128),
    "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192),
    "TrafficCone": (0, 0, 64),
    "TrafficLight": (0, 64, 64),
    "Train": (192, 64, 128),
    "Tree": (128, 128, 0),
    "Truck_Bus": (192, 128, 192),
    "Tunnel": (64, 0, 64),
    "VegetationMisc": (192, 192, 0),
    "Void": (0, 0, 0),
    "Wall": (64, 192, 0),
}
"""RGB colour of each class in `LabeledApproved_full` (the release's `label_colors.txt`)."""

GROUPS: dict[str, tuple[str, ...]] = {
    "sky": ("Sky",),
    "building": ("Building", "Wall", "Bridge", "Tunnel", "Archway"),
    "pole": ("Column_Pole", "TrafficCone"),
    "road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "pavement": ("Sidewalk", "ParkingBlock", "RoadShoulder"),
    "tree": ("Tree", "VegetationMisc"),
    "sign": ("SignSymbol", "Misc_Text", "TrafficLight"),
    "fence": ("Fence",),
    "car": ("Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"),
    "pedestrian": ("Pedestrian", "Child", "CartLuggagePram", "Animal"),
    "bicyclist": ("Bicyclist", "MotorcycleScooter"),
}
"""The usual grouping into CamVid's 11 classes; `Void` is the only original class left out (ignored)."""

UNKNOWN = 254
"""What `labels_from_colours` returns for a colour that is not in `ORIGINAL_COLOURS`."""


def _grid_table() -> np.ndarray:
    # Every official channel value is 0, 64, 128 or 192, so that two bits per channel address a colour.
    table = np.full(64, UNKNOWN, np.uint8)
    for label, name in enumerate(CAMVID.classes):
        for original in GROUPS[name]:
            table[_address(ORIGINAL_COLOURS[original])] = label
    table[_address(ORIGINAL_COLOURS["Void"])] = CAMVID.ignore_index
    return table


def _address(colour: tuple[int, int, int]) -> int:
    red, green, blue = (value // 64 for value in colour)
    return red * 16 + green * 4 + blue


_TABLE = _grid_table()


def labels_from_colours(colours: np.ndarray) -> np.ndarray:
    """Labels, uint8 (H, W): 0-10, 255 for void, `UNKNOWN` (254) for a colour outside the official 32.

    `colours`: uint8 (H, W, 3), RGB.
    """
    steps = colours >> 6
    labels = _TABLE[steps[..., 0] * 16 + steps[..., 1] * 4 + steps[..., 2]]
    labels[(colours & 63).any(axis=-1)] = UNKNOWN
    return labels
