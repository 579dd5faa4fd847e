"""Augmentation of generated images, on the device, from an explicit source of randomness.

Student and teacher both see the changed image, so no label goes stale: it widens the range of images on which the
student is asked, towards what a generator alone would not make.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfad_seg.distill.surfaces import change_surfaces


@dataclass(frozen=True)
class ImageAugmentation:
    """`(images, rng) -> images`, both (N, 3, H, W) in [0, 1].

    Args:
        photometric: strength in [0, 1] of changes of saturation, contrast, colour cast, brightness and sharpness, each
            drawn per image; 0 leaves the values alone.
        surfaces: share in [0, 1] of the images, rounded up, whose surfaces are changed, see `surfaces.change_surfaces`.
        geometric: mirror half of the images, and zoom each by a factor between 2 and 0.6, the scene reflected at its
            borders where it would end.
    """

    photometric: float = 0.0
    geometric: bool = False
    surfaces: float = 0.0

    @torch.no_grad()
    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        if self.geometric:
            images = _zoom_and_mirror(images, rng)
        if self.photometric:
            images = _recolour(images, self.photometric, rng)
        if changed := math.ceil(round(self.surfaces * len(images), 6)):
            images = torch.cat([change_surfaces(images[:changed], rng), images[changed:]])
        return images


def _uniform(low: float, high: float, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=rng, device=rng.device)


def _zoom_and_mirror(images: Tensor, rng: torch.Generator) -> Tensor:
    count = len(images)
    view = _uniform(0.5, 1.6, (count,), rng)  # the share of the scene's side that is seen
    room = (1 - view).clamp_min(0)
    mirror = torch.where(_uniform(0, 1, (count,), rng) < 0.5, -1.0, 1.0)
    affine = torch.zeros(count, 2, 3, device=images.device)
    affine[:, 0, 0] = view * mirror
    affine[:, 1, 1] = view
    affine[:, :, 2] = _uniform(-1, 1, (count, 2), rng) * room[:, None]
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid.to(images), padding_mode="reflection", align_corners=False)


def _recolour(images: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    one = (len(images), 1, 1, 1)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * _uniform(1 - strength, 1 + strength, one, rng)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * _uniform(1 - strength, 1 + strength, one, rng)
    images = images * (1 + 0.3 * strength * _uniform(-1, 1, (len(images), 3, 1, 1), rng))
    images = images + 0.4 * strength * _uniform(-1, 1, one, rng)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel_size=3, stride=1)
    amount = _uniform(-1, 1, one, rng).clamp_min(0)
    return torch.lerp(images, blurred, amount).clamp(0, 1)
