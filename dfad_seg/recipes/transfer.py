"""Unlabelled images of one's own, for a student to learn from beside generated ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dfad_seg.common.errors import InputError
from dfad_seg.common.images import read_photo
from dfad_seg.config import Config
from dfad_seg.datasets.listing import list_images
from dfad_seg.recipes.build import image_channels

LARGEST = 1.5
"""Images are scaled to cover a crop 1 to so many times."""
KEPT = 256
"""Decoded images that stay in memory, at most so large that they can be scaled for a crop."""


def transfer_images(config: Config) -> Callable[[int, tuple[int, int], torch.Generator], Tensor] | None:
    """(count, (H, W), rng) → random crops (count, 3, H, W) in [0, 1] of the images in the config's `transfer_images`.

    They depend on the rng alone. None where the config names no folder.
    """
    folder = getattr(config, "transfer_images", None)
    if folder is None:
        return None
    if (channels := image_channels(config)) != 3:
        raise InputError(f"transfer_images are photos of 3 channels, and the networks take {channels}. Leave them out.")
    files = list(list_images(Path(folder), "transfer image").values())
    sizes = (config.image_size, *getattr(config, "progressive_sizes", ()))
    side = int(LARGEST * max(max(size) for size in sizes))

    @functools.lru_cache(maxsize=KEPT)
    def read(place: int) -> Tensor:
        image = torch.from_numpy(read_photo(files[place]).upright()).permute(2, 0, 1)[None]
        return _covering(image, (side, side)) if min(image.shape[-2:]) > side else image

    def draw(count: int, size: tuple[int, int], rng: torch.Generator) -> Tensor:
        places = torch.randint(len(files), (count,), generator=rng, device=rng.device).tolist()
        dice = torch.rand(count, 4, generator=rng, device=rng.device).tolist()
        return torch.cat([_crop(read(place), size, *row) for place, row in zip(places, dice, strict=True)])

    return draw


def _covering(image: Tensor, size: tuple[int, int]) -> Tensor:
    """A byte image (1, 3, H, W), scaled to the least size that covers `size`."""
    factor = max(want / have for want, have in zip(size, image.shape[-2:], strict=True))
    scaled = [max(want, round(factor * have)) for want, have in zip(size, image.shape[-2:], strict=True)]
    return F.interpolate(image, scaled, mode="bilinear", antialias=True)


def _crop(image: Tensor, size: tuple[int, int], scale: float, down: float, right: float, mirror: float) -> Tensor:
    """A crop in [0, 1]; the dice, in [0, 1), say how large, where, and whether it is mirrored."""
    larger = 1 + scale * (LARGEST - 1)
    scaled = _covering(image, (round(larger * size[0]), round(larger * size[1])))
    top, left = (
        int(die * (have - want + 1)) for die, have, want in zip((down, right), scaled.shape[-2:], size, strict=True)
    )
    crop = scaled[..., top : top + size[0], left : left + size[1]].float() / 255
    return crop.flip(-1) if mirror < 0.5 else crop
