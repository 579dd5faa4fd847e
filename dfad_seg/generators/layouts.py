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
    class_by_row: Tensor | None = None,
    cells: tuple[int, int] = (4, 16),
    boxes: tuple[int, int] = (0, 10),
) -> Tensor:
    """Layouts (batch, H, W) of class ids: warped Voronoi cells with small upright boxes in front.

    Each cell takes its class by the height of its centre in the image; cell borders are bent by a smooth random
    field so that they are not straight, and cells are stretched sideways by a random factor as the regions of real
    scenes are. The upright boxes stand for poles, people and signs: a receptive field that has only seen wide
    regions answers nothing useful on them. Their classes are drawn against the frequency in `class_by_row`, as what
    is rare in a teacher's answers is mostly what is small in its world.

    Args:
        batch: number of layouts.
        size: (H, W).
        num_classes: C; ids are in [0, C).
        rng: source of randomness; its device is the result's.
        class_by_row: (C, R) relative frequency of each class in each of R equal bands of the image, top to bottom,
            > 0; default uniform.
        cells: least and most number of Voronoi cells, inclusive.
        boxes: least and most number of upright boxes, inclusive.
    """
    device = rng.device
    height, width = size
    if class_by_row is None:
        class_by_row = torch.ones(num_classes, 1, device=device)
    by_row = class_by_row / class_by_row.sum(dim=0)
    rare = 1 / by_row.mean(dim=1).clamp_min(0.1 / num_classes)

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
    row = (centres[..., 0] * by_row.shape[1]).long().clamp_max(by_row.shape[1] - 1)
    cell_class = torch.multinomial(by_row.T[row.flatten()], 1, generator=rng).view(batch, most)
    layout = cell_class.gather(1, cell.flatten(1)).view(batch, height, width)

    # Drawn in order, so that later ones stand in front.
    most = boxes[1]
    if most:
        number = torch.randint(boxes[0], most + 1, (batch, 1), generator=rng, device=device)
        tall = 0.08 + 0.6 * uniform(batch, most).square()
        wide = tall * (0.06 + 0.7 * uniform(batch, most).square())
        top, left = uniform(batch, most) * (1 - tall), uniform(batch, most) - wide / 2
        box_class = torch.multinomial(rare.expand(batch, -1), most, replacement=True, generator=rng)
        for i in range(most):
            inside_y = (ys >= top[:, i, None]) & (ys < (top + tall)[:, i, None])
            inside_x = (xs >= left[:, i, None]) & (xs < (left + wide)[:, i, None])
            inside = inside_y[:, :, None] & inside_x[:, None, :] & (i < number)[:, :, None]
            layout = torch.where(inside, box_class[:, i, None, None], layout)
    return layout
