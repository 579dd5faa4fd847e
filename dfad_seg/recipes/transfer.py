"""Unlabelled images of one's own, for a student to learn from beside generated ones."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dfad_seg.common.samples import read_image
from dfad_seg.config import Config
from dfad_seg.datasets import EvalTransform, TrainingData, TrainTransform
from dfad_seg.datasets.listing import list_files
from dfad_seg.recipes.build import image_channels

LARGEST = 1.5
"""Images are scaled to 1 to so many times the larger side of a crop."""
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
    side = int(LARGEST * max(config.image_size))

    @functools.lru_cache(maxsize=KEPT)
    def read(place: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = read_image(files[place], channels, span, "transfer image").upright()
        pair = pixels, np.zeros(pixels.shape[:2], np.uint8)
        return EvalTransform(short_side=side)(*pair) if min(pixels.shape[:2]) > side else pair

    read(0)  # what is wrong with all of them is said before anything begins

    @functools.cache
    def cropped(size: tuple[int, int]) -> TrainTransform:
        return TrainTransform(TrainingData(short_side=max(size), scale=(1.0, LARGEST)), size, channels)

    def draw(count: int, size: tuple[int, int], rng: torch.Generator) -> Tensor:
        dice = torch.randint(2**31, (count, 2), generator=rng, device=rng.device).tolist()
        crops = [cropped(size)(*read(place % len(files)), seed)[0] for place, seed in dice]
        planes = [torch.from_numpy(crop.transpose(2, 0, 1).copy()) for crop in crops]
        return torch.stack([each.float() / 255 if each.dtype == torch.uint8 else each for each in planes])

    return draw
