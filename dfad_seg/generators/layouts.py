"""Random semantic layouts, and the noise inside their regions, drawn on the device, with nothing learnt from data."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dfad_seg.generators.base import normal, uniform

CELLS = (4, 16)
"""Fewest and most regions of a layout."""
SMOOTH_STEP = 20
"""Pixels between the nodes of the smooth noise."""
CELL_SIDES = ((12.0, 32.0), (4.0, 10.0))
"""Shortest and longest side of the cells in pixels, by channel."""

CHANNELS = 2 + len(CELL_SIDES)


def voronoi_cells(batch: int, size: tuple[int, int], frequencies: Tensor, rng: torch.Generator) -> Tensor:
    """Layouts (batch, H, W) of class ids: cells around random centres, each of a class drawn by its frequency.

    Their borders are bent by a smooth random field so that they are not straight, and cells are stretched sideways by a
    random factor as the regions of real scenes are. `frequencies` (C,) of the classes are > 0; the device is the rng's.
    """
    device = rng.device
    height, width = size
    grid = torch.stack(torch.meshgrid(_centres(height, device), _centres(width, device), indexing="ij"))
    grid = grid.expand(batch, 2, height, width)
    for nodes, strength in ((5, 0.12), (12, 0.04)):
        noise = normal(rng, batch, 2, nodes, nodes)
        grid = grid + strength * F.interpolate(noise, size, mode="bicubic", align_corners=False)

    fewest, most = CELLS
    count = torch.randint(fewest, most + 1, (batch, 1), generator=rng, device=device)
    centres = uniform(rng, batch, most, 2)
    stretch = torch.stack([torch.ones(batch, device=device), 0.3 + 0.7 * uniform(rng, batch)], dim=1)
    distance = torch.zeros(batch, most, height, width, device=device)
    for axis in range(2):
        gap = grid[:, axis].unsqueeze(1) - centres[:, :, axis, None, None]
        distance += (gap * stretch[:, axis, None, None, None]).square()
    unused = torch.arange(most, device=device) >= count
    cell = distance.masked_fill(unused[:, :, None, None], torch.inf).argmin(dim=1)
    classes = torch.multinomial(frequencies.expand(batch * most, -1), 1, generator=rng).view(batch, most)
    return classes.gather(1, cell.flatten(1)).view(batch, height, width)


def add_boxes(layout: Tensor, frequencies: Tensor, rng: torch.Generator, *, most: int) -> Tensor:
    """Put up to `most` small upright boxes before the regions of layouts (N, H, W).

    They stand for poles, people and signs: a receptive field that has only seen wide regions recognises nothing in
    them. Their classes are drawn against `frequencies` (C,), as what is rare is mostly what is small in a teacher's
    world.
    """
    batch, height, width = layout.shape
    if not most:
        return layout
    ys, xs = _centres(height, rng.device), _centres(width, rng.device)
    rare = 1 / frequencies.clamp_min(0.1 / len(frequencies))
    number = torch.randint(0, most + 1, (batch, 1), generator=rng, device=rng.device)
    tall = 0.08 + 0.6 * uniform(rng, batch, most).square()
    wide = tall * (0.06 + 0.7 * uniform(rng, batch, most).square())
    top, left = uniform(rng, batch, most) * (1 - tall), uniform(rng, batch, most) - wide / 2
    box_class = torch.multinomial(rare.expand(batch, -1), most, replacement=True, generator=rng)
    # Drawn in order, so that later ones stand in front.
    for i in range(most):
        inside_y = (ys >= top[:, i, None]) & (ys < (top + tall)[:, i, None])
        inside_x = (xs >= left[:, i, None]) & (xs < (left + wide)[:, i, None])
        inside = inside_y[:, :, None] & inside_x[:, None, :] & (i < number)[:, :, None]
        layout = torch.where(inside, box_class[:, i, None, None], layout)
    return layout


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


def _centres(length: int, device: torch.device) -> Tensor:
    """Pixel centres along a side of the image, in (0, 1)."""
    return (torch.arange(length, device=device) + 0.5) / length
