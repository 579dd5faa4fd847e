"""Unlabelled images of one's own, for a student to learn from beside generated ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dfad_seg.common.samples import read_image
from dfad_seg.config import Config
from dfad_seg.datasets.listing import list_files
from dfad_seg.recipes.build import image_channels

LARGEST = 1.5
"""Images are scaled to cover a crop 1 to so many times."""
SUFFIXES = (".png", ".jpg", ".bmp", ".webp", ".tif", ".tiff", ".npy", ".dcm")
KEPT = 256
"""Decoded images that stay in memory, at most so large that they can be scaled for a crop."""


def transfer_images(config: Config) -> Callable[[int, tuple[int, int], torch.Generator], Tensor] | None:
    """(count, (H, W), rng) → random crops (count, K, H, W) in [0, 1] of the images in the config's `transfer_images`.

    They depend on the rng alone, and are read as those of the data set: of the networks' channels, with its range. None
    where the config names no folder.
    """
    folder = getattr(config, "transfer_images", None)
    if folder is None:
        return None
    files = list(list_files(Path(folder), SUFFIXES, "transfer image").values())
    channels = image_channels(config)
    span = None if config.dataset is None else getattr(config.dataset.options, "img_range", None)
    side = int(LARGEST * max(map(max, (config.image_size, *getattr(config, "progressive_sizes", ())))))

    @functools.lru_cache(maxsize=KEPT)
    def read(place: int) -> Tensor:
        pixels = read_image(files[place], channels, span, "transfer image").upright()
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        return _covering(image, (side, side)) if min(image.shape[-2:]) > side else image

    read(0)  # what is wrong with all of them is said before anything begins

    def draw(count: int, size: tuple[int, int], rng: torch.Generator) -> Tensor:
        places = torch.randint(len(files), (count,), generator=rng, device=rng.device).tolist()
        dice = torch.rand(count, 4, generator=rng, device=rng.device).tolist()
        return torch.cat([_crop(read(place), size, *row) for place, row in zip(places, dice, strict=True)])

    return draw


def _covering(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image (1, K, H, W) of bytes or floats, scaled to the least size that covers `size`."""
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
    crop = scaled[..., top : top + size[0], left : left + size[1]]
    crop = crop.float() / 255 if crop.dtype == torch.uint8 else crop
    return crop.flip(-1) if mirror < 0.5 else crop
