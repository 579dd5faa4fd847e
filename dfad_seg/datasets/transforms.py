"""Augmentation for training and resizing for evaluation, on `(image, mask)` arrays.

The only file that knows albumentations, which is imported when the first training transform is built.
"""

import os
import random
from typing import Any

import cv2
import numpy as np

from dfad_seg.common.labels import IGNORED
from dfad_seg.common.values import Fraction, NonNegative, Positive, Rate, options


@options
class TrainingData:
    """Augmentation of real training images; crops have the size `image_size`."""

    split: str = "train"
    """Of the data set."""
    short_side: Positive | None = None
    """Resize to this shorter side first."""
    scale: tuple[Rate, Rate] = (1.0, 1.0)
    """Random scaling between these factors."""
    hflip: bool = True
    """Mirror every other image."""
    color_jitter: Fraction = 0.0
    """Strength of brightness, contrast and saturation changes."""
    num_workers: NonNegative = 2
    """Processes that read images; 0: none but the main one."""

    def __post_init__(self) -> None:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale is {list(self.scale)}; a range [low, high] is needed")


class TrainTransform:
    """The augmentation of a training sample; its result is fully settled by the seed of a call.

    In this order: the short side is resized, everything is scaled by a factor drawn from `scale`, padded (image 0, mask
    255) and cut at a random place to `crop_size` (height, width), flipped left-right with probability 0.5, and
    brightness, contrast and saturation are multiplied by factors from [1 - color_jitter, 1 + color_jitter], the hue
    shifted by at most color_jitter / 8 of the circle; other `channels` than 3 have neither saturation nor hue.

    Images shrink by area averaging and grow bilinearly; masks take the nearest pixel.
    """

    def __init__(self, options: TrainingData, crop_size: tuple[int, int], channels: int = 3) -> None:
        # Without this, importing albumentations asks a server for its newest version.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations

        height, width = crop_size
        low, high = options.scale
        resize = {
            "interpolation": cv2.INTER_LINEAR,
            "mask_interpolation": cv2.INTER_NEAREST_EXACT,
            "area_for_downscale": "image",
        }
        steps: list[Any] = []
        if options.short_side is not None:
            steps.append(albumentations.SmallestMaxSize(max_size=options.short_side, **resize))
        if (low, high) != (1, 1):
            steps.append(albumentations.RandomScale(scale_limit=(low - 1, high - 1), p=1, **resize))
        steps += [
            albumentations.PadIfNeeded(min_height=height, min_width=width, fill=0, fill_mask=IGNORED),
            albumentations.RandomCrop(height=height, width=width),
        ]
        if options.hflip:
            steps.append(albumentations.HorizontalFlip(p=0.5))
        if options.color_jitter:
            gain = (1 - options.color_jitter, 1 + options.color_jitter)
            hue = options.color_jitter / 8  # a hue change of the same size would swap classes' colours
            jitter = albumentations.ColorJitter(brightness=gain, contrast=gain, saturation=gain, hue=(-hue, hue), p=1)
            if channels != 3:
                limits = {f"{name}_limit": options.color_jitter for name in ("brightness", "contrast")}
                jitter = albumentations.RandomBrightnessContrast(**limits, p=1)
            steps.append(jitter)
        self._compose = albumentations.Compose(steps)

    def __call__(self, image: np.ndarray, mask: np.ndarray, seed: int | None) -> tuple[np.ndarray, np.ndarray]:
        # One stream shared by all steps.  `set_random_seed` would start every step's own stream from the
        # same seed, so that, for instance, the flip and the scale of a sample always go together.
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        result = self._compose(image=image, mask=mask)
        return result["image"], result["mask"]


class EvalTransform:
    """Resize image and mask so that the short side has `short_side` pixels; None keeps the native size.

    The image shrinks by area averaging and grows bilinearly, the mask takes the nearest pixel.
    """

    def __init__(self, *, short_side: int | None = None) -> None:
        self.short_side = short_side

    def __call__(self, image: np.ndarray, mask: np.ndarray, seed: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        height, width = mask.shape
        if self.short_side is None or min(height, width) == self.short_side:
            return image, mask
        factor = self.short_side / min(height, width)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        # INTER_NEAREST takes a pixel's corner and would shift the mask against the image.
        return (
            cv2.resize(image, size, interpolation=interpolation).reshape(size[1], size[0], -1),  # it drops a single one
            cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT),
        )
