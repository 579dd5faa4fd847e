"""Noise from which a layout generator makes the inside of its regions, drawn on the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dfad_seg.generators.base import normal

SMOOTH_STEP = 20
"""Pixels between the nodes of the smooth noise."""
CELL_SIDES = ((12.0, 32.0), (4.0, 10.0))
"""Shortest and longest side of the cells in pixels, by channel."""

CHANNELS = 2 + len(CELL_SIDES)


def texture_noise(batch: int, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Noise (batch, CHANNELS, H, W) of zero mean and a standard deviation near 1, on the rng's device.

    One channel of independent pixels, one smooth field, and rectangular cells of two sizes, for what real textures have
    and convolutions do not easily make of white noise: slow changes of light, straight edges, repeated parts. Lengths
    are in pixels, whatever the image's size, as a receptive field's are.
    """
    white = normal(rng, batch, 1, *size)
    nodes = [max(2, round(length / SMOOTH_STEP) + 1) for length in size]
    smooth = F.interpolate(normal(rng, batch, 1, *nodes), size, mode="bicubic", align_corners=True)
    return torch.cat([white, smooth, *(_cells(batch, size, sides, rng) for sides in CELL_SIDES)], dim=1)


def _cells(batch: int, size: tuple[int, int], sides: tuple[float, float], rng: torch.Generator) -> Tensor:
    """(batch, 1, H, W): a grid of rectangles, of random sides and place in each image, each of one normal value."""
    device = rng.device
    indices, counts = [], []
    for length in size:
        side = sides[0] * (sides[1] / sides[0]) ** torch.rand(batch, 1, generator=rng, device=device)
        shift = torch.rand(batch, 1, generator=rng, device=device)
        indices.append((torch.arange(length, device=device) / side + shift).long())
        counts.append(int(length / sides[0]) + 2)
    values = normal(rng, batch, *counts)
    image = torch.arange(batch, device=device)[:, None, None]
    return values[image, indices[0][:, :, None], indices[1][:, None, :]].unsqueeze(1)
