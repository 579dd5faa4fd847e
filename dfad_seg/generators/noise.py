"""The control: images of independent uniform noise, nothing to train."""

from __future__ import annotations

import torch
from torch import Tensor

from dfad_seg.generators.base import ImageGenerator, uniform


class NoiseGenerator(ImageGenerator):
    """Images whose pixels are independent and uniform in [0, 1]; the latents are the images themselves."""

    def sample(self, batch: int, size: tuple[int, int], rng: torch.Generator) -> Tensor:
        """Uniform images (batch, 3, H, W) on the rng's device."""
        return uniform(rng, batch, 3, *size)

    def forward(self, latents: Tensor) -> Tensor:
        return latents
