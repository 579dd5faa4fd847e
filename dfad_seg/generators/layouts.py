"""Random semantic layouts, drawn on the device, with nothing learnt from data."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def random_layouts(
    batch: int,
    size: tuple[int, int],
    num_classes: int,
    rng: torch.Generator,
    *,
    class_frequencies: Tensor | None = None,
    cells: tuple[int, int] = (4, 16),
    thin: tuple[int, int] = (0, 6),
    thin_classes: Tensor | None = None,
) -> Tensor:
    """Layouts (batch, H, W) of class ids: warped Voronoi cells with thin upright shapes in front.

    Each cell takes its class from `class_frequencies` (default uniform); cell borders are bent by a smooth
    random field so that they are not straight, and cells are stretched sideways by a random factor as the regions
    of real scenes are. The upright boxes stand for poles, people and signs: a receptive field that has only
    seen wide regions answers nothing useful on them.

    Args:
        batch: number of layouts.
        size: (H, W).
        num_classes: C; ids are in [0, C).
        rng: source of randomness; its device is the result's.
        class_frequencies: (C,) relative frequencies, ≥ 0.
        cells: least and most number of Voronoi cells, inclusive.
        thin: least and most number of upright boxes, inclusive.
        thin_classes: (C,) relative frequencies of the boxes' classes; default as `class_frequencies`.
    """
    device = rng.device
    height, width = size
    frequencies = torch.ones(num_classes) if class_frequencies is None else class_frequencies
    frequencies = frequencies.to(device, torch.float32)
    boxes_from = frequencies if thin_classes is None else thin_classes.to(device, torch.float32)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, device=device)

    # Coordinates in [0, 1], bent by two octaves of smooth noise.
    ys = (torch.arange(height, device=device) + 0.5) / height
    xs = (torch.arange(width, device=device) + 0.5) / width
    grid = torch.stack(torch.meshgrid(ys, xs, indexing="ij")).expand(batch, 2, height, width)
    for nodes, strength in ((5, 0.12), (12, 0.04)):
        bend = torch.randn(batch, 2, nodes, nodes, generator=rng, device=device)
        grid = grid + strength * F.interpolate(bend, size, mode="bicubic", align_corners=False)

    most = cells[1]
    count = torch.randint(cells[0], most + 1, (batch, 1), generator=rng, device=device)
    centres = uniform(batch, most, 2)
    stretch = torch.stack([torch.ones(batch, device=device), 0.3 + 0.7 * uniform(batch)], dim=1)
    distance = torch.zeros(batch, most, height, width, device=device)
    for axis in range(2):
        gap = grid[:, axis].unsqueeze(1) - centres[:, :, axis, None, None]
        distance += (gap * stretch[:, axis, None, None, None]).square()
    unused = torch.arange(most, device=device) >= count
    distance = distance.masked_fill(unused[:, :, None, None], torch.inf)
    cell = distance.argmin(dim=1)
    cell_class = torch.multinomial(frequencies.expand(batch, -1), most, replacement=True, generator=rng)
    layout = cell_class.gather(1, cell.flatten(1)).view(batch, height, width)

    # Upright boxes, drawn in order so that later ones stand in front.
    boxes = thin[1]
    if boxes:
        number = torch.randint(thin[0], boxes + 1, (batch, 1), generator=rng, device=device)
        tall = 0.08 + 0.5 * uniform(batch, boxes).square()
        wide = tall * (0.1 + 0.6 * uniform(batch, boxes))
        top, left = uniform(batch, boxes) * (1 - tall), uniform(batch, boxes) - wide / 2
        box_class = torch.multinomial(boxes_from.expand(batch, -1), boxes, replacement=True, generator=rng)
        for i in range(boxes):
            inside_y = (ys >= top[:, i, None]) & (ys < (top + tall)[:, i, None])
            inside_x = (xs >= left[:, i, None]) & (xs < (left + wide)[:, i, None])
            inside = inside_y[:, :, None] & inside_x[:, None, :] & (i < number)[:, :, None]
            layout = torch.where(inside, box_class[:, i, None, None], layout)
    return layout
