"""Random semantic layouts, drawn on the device, with nothing learnt from data.

To add a kind, write a function `(batch, size, by_row, rng) -> layouts`, add a line to `LAYOUTS` and a test; the option
`generator.layouts` then accepts it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dfad_seg.common.errors import choose
from dfad_seg.generators.draws import uniform

NO_CLASS = 255
"""In label maps."""


def random_regions(kind: str, batch: int, size: tuple[int, int], by_row: Tensor, rng: torch.Generator) -> Tensor:
    """Layouts (batch, H, W) of class ids, of large regions that take their classes by their height in the image.

    Args:
        kind: a name of `LAYOUTS`, or `"mixed"`: every kind in turn.
        batch: number of layouts.
        size: (H, W).
        by_row: (C, R) > 0, frequency of each of C classes in each of R equal bands of the image, top to bottom; the
            classes of a band sum to 1.
        rng: source of randomness; its device is the result's.

    Raises:
        InputError: unknown kind.
    """
    kinds = list(LAYOUTS.values()) if kind == "mixed" else [choose(LAYOUTS, kind, "generator.layouts")]
    parts = []
    for i, draw in enumerate(kinds):
        share = len(range(i, batch, len(kinds)))
        if share:
            parts.append(draw(share, size, by_row, rng))
    return torch.cat(parts)


def add_boxes(layout: Tensor, by_row: Tensor, rng: torch.Generator, *, boxes: tuple[int, int] = (0, 10)) -> Tensor:
    """Put small upright boxes before the regions of layouts (N, H, W).

    They stand for poles, people and signs: a receptive field that has only seen wide regions answers nothing useful on
    them. Their classes are drawn against the frequency in `by_row`, as what is rare is mostly what is small in a
    teacher's world. `boxes` is their least and most number per image, inclusive.
    """
    batch, height, width = layout.shape
    most = boxes[1]
    if not most:
        return layout
    ys, xs = _centres(height, rng.device), _centres(width, rng.device)
    rare = 1 / by_row.mean(dim=1).clamp_min(0.1 / len(by_row))
    number = torch.randint(boxes[0], most + 1, (batch, 1), generator=rng, device=rng.device)
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


def crop_label_maps(
    maps: Tensor, under: Tensor, rng: torch.Generator, *, zoom: tuple[float, float] = (0.75, 1.5)
) -> Tensor:
    """Layouts from a random part of a random label map each, at a random size, half of them mirrored.

    Args:
        maps: (K, H, W) uint8 class ids; 255 is no class.
        under: (N, h, w) layouts that show where the map has no class; theirs is the result's shape.
        rng: source of randomness, on the device of both.
        zoom: smallest and largest size of a map's pixel in the layout's. A map too small to fill a layout is enlarged
            until it does.
    """
    batch, *size = under.shape
    draws = uniform(rng, 5, batch)
    chosen = maps[(draws[0] * len(maps)).long()]
    scale = zoom[0] * (zoom[1] / zoom[0]) ** draws[1]
    sides = list(zip(size, maps.shape[1:], strict=True))
    scale = scale.clamp_min(max(wanted / there for wanted, there in sides))
    seen = torch.stack([wanted / (there * scale) for wanted, there in sides])
    layouts = parts(chosen, (size[0], size[1]), seen, draws[2:4].flip(0), draws[4] < 0.5)
    return torch.where(layouts == NO_CLASS, under, layouts)


def parts(maps: Tensor, size: tuple[int, int], seen: Tensor, places: Tensor, mirrored: Tensor) -> Tensor:
    """A part of each of the maps (N, h, w) of class ids, at `size` (H, W), by the nearest pixel: long (N, H, W).

    Args:
        maps: class ids.
        size: of the result.
        seen: (2, N) shares in (0, 1] of a map's height and width.
        places: (2, N) in [0, 1], where in the map: 0 is the top or the left, 1 the bottom or the right.
        mirrored: (N,) bool.
    """
    affine = torch.zeros(len(maps), 2, 3, device=maps.device)
    for axis in range(2):  # `affine_grid` has x before y
        affine[:, axis, axis] = seen[1 - axis]
        affine[:, axis, 2] = (2 * places[1 - axis] - 1) * (1 - seen[1 - axis])
    affine[:, 0, 0] *= torch.where(mirrored, -1.0, 1.0)
    grid = F.affine_grid(affine, [len(maps), 1, *size], align_corners=False)
    found = F.grid_sample(maps.unsqueeze(1).float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    return found.squeeze(1).round().long()


def voronoi_cells(
    batch: int, size: tuple[int, int], by_row: Tensor, rng: torch.Generator, *, cells: tuple[int, int] = (4, 16)
) -> Tensor:
    """Cells around random centres, each of a class that is likely at its centre's height.

    Their borders are bent by a smooth random field so that they are not straight, and cells are stretched sideways by a
    random factor as the regions of real scenes are.
    """
    device = rng.device
    height, width = size
    grid = torch.stack(torch.meshgrid(_centres(height, device), _centres(width, device), indexing="ij"))
    grid = grid.expand(batch, 2, height, width)
    for nodes, strength in ((5, 0.12), (12, 0.04)):
        grid = grid + strength * _smooth_noise(batch, 2, nodes, size, rng)

    most = cells[1]
    count = torch.randint(cells[0], most + 1, (batch, 1), generator=rng, device=device)
    centres = uniform(rng, batch, most, 2)
    stretch = torch.stack([torch.ones(batch, device=device), 0.3 + 0.7 * uniform(rng, batch)], dim=1)
    distance = torch.zeros(batch, most, height, width, device=device)
    for axis in range(2):
        gap = grid[:, axis].unsqueeze(1) - centres[:, :, axis, None, None]
        distance += (gap * stretch[:, axis, None, None, None]).square()
    unused = torch.arange(most, device=device) >= count
    distance = distance.masked_fill(unused[:, :, None, None], torch.inf)
    cell = distance.argmin(dim=1)
    cell_class = _classes_at(centres[..., 0], by_row, rng)
    return cell_class.gather(1, cell.flatten(1)).view(batch, height, width)


def smooth_fields(batch: int, size: tuple[int, int], by_row: Tensor, rng: torch.Generator) -> Tensor:
    """At each pixel the class whose smooth random field, plus the log of its frequency at this height, is largest."""
    num_classes, rows = by_row.shape
    field = 2.0 * _smooth_noise(batch, num_classes, 4, size, rng)
    field = field + 0.5 * _smooth_noise(batch, num_classes, 8, size, rng)
    row = (_centres(size[0], rng.device) * rows).long()
    return (field + by_row.log()[:, row].unsqueeze(-1)).argmax(dim=1)


def horizon_bands(
    batch: int, size: tuple[int, int], by_row: Tensor, rng: torch.Generator, *, bands: tuple[int, int] = (2, 6)
) -> Tensor:
    """Silhouettes before one another, as in a view to the horizon: each band begins where its random skyline runs.

    Later bands begin lower and hide what is behind them; a skyline is a smooth curve or runs in steps, as roofs do.
    """
    device = rng.device
    height, width = size
    most = bands[1]
    count = torch.randint(bands[0], most + 1, (batch, 1), generator=rng, device=device)
    tops = uniform(rng, batch, most).sort(dim=1).values
    unused = torch.arange(most, device=device) >= count
    tops = tops.masked_fill(unused, 2.0)  # below the image
    tops[:, 0] = -1  # the furthest band is the background
    smooth = 0.12 * _smooth_noise(batch, most, 6, (1, width), rng)[:, :, 0]
    steps = 0.12 * torch.randn(batch, most, 7, generator=rng, device=device)
    stepped = F.interpolate(steps, width, mode="nearest")
    skyline = tops[..., None] + torch.where(uniform(rng, batch, most, 1) < 0.5, smooth, stepped)
    inside = _centres(height, device)[:, None] >= skyline[:, :, None, :]  # (N, bands, H, W)
    inside[:, 0] = True
    order = torch.arange(1, most + 1, device=device)[:, None, None]
    front = (inside * order).argmax(dim=1)
    bottoms = torch.cat([tops[:, 1:], torch.ones_like(tops[:, :1])], dim=1)
    middle = (tops.clamp(0, 1) + bottoms.clamp(0, 1)) / 2
    return _classes_at(middle, by_row, rng).gather(1, front.flatten(1)).view(batch, height, width)


Layouts = Callable[[int, tuple[int, int], Tensor, torch.Generator], Tensor]

LAYOUTS: dict[str, Layouts] = {
    "voronoi": voronoi_cells,
    "fields": smooth_fields,
    "horizon": horizon_bands,
}


def _classes_at(heights: Tensor, by_row: Tensor, rng: torch.Generator) -> Tensor:
    """A class for each height in [0, 1] (0 is the top), by the frequencies there; same shape."""
    rows = by_row.shape[1]
    row = (heights * rows).long().clamp(0, rows - 1)
    return torch.multinomial(by_row.T[row.flatten()], 1, generator=rng).view(heights.shape)


def _smooth_noise(batch: int, channels: int, nodes: int, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """(batch, channels, H, W): normal values at `nodes`² points, and smooth in between."""
    values = torch.randn(batch, channels, nodes, nodes, generator=rng, device=rng.device)
    return F.interpolate(values, size, mode="bicubic", align_corners=False)


def _centres(length: int, device: torch.device) -> Tensor:
    """Pixel centres along a side of the image, in (0, 1)."""
    return (torch.arange(length, device=device) + 0.5) / length
