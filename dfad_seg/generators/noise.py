"""The control: images of independent uniform noise, nothing to train."""

from __future__ import annotations

import torch
from torch import Tensor

from dfad_seg.generators.base import ImageGenerator, uniform


class NoiseGenerator(ImageGenerator):
    """Images whose pixels are independent and uniform in [0, 1]; the latents are the images themselves."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels

    def sample(self, batch: int, size: tuple[int, int], rng: torch.Generator) -> Tensor:
        """Uniform images (batch, K, H, W) on the rng's device."""
        return uniform(rng, batch, self.in_channels, *size)

    def forward(self, latents: Tensor) -> Tensor:
        return latents
