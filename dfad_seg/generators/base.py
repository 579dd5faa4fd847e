"""What every image generator is, and the control: noise, nothing to train."""

from typing import Any

import torch
from torch import Tensor, nn


class ImageGenerator(nn.Module):
    """`sample(batch, size, rng)` draws latents; `forward(latents)` makes images (N, K, H, W) in [0, 1] of them.

    Latents are whatever the generator likes: a tensor, or a named tuple of tensors.
    """

    image_size: tuple[int, int] | None = None
    """The only (H, W) that it makes; None: any."""
    least_batch: int = 1
    """Images that a step needs for all parts of the generator to learn."""
    follows_shares: bool = False
    """Whether `aim` makes use of the class shares of the teacher's training data."""

    def sample(self, batch: int, size: tuple[int, int], rng: torch.Generator) -> Any:
        """Latents of `batch` images of `size` (H, W), from nothing but `rng`, on its device."""
        raise TypeError(f"{type(self).__name__} does not say how to sample latents")

    def forward(self, latents: Any) -> Tensor:
        """Images (N, K, H, W), float32 in [0, 1]; K = 3 for RGB."""
        raise TypeError(f"{type(self).__name__} does not say how to make images")

    def observe(self, latents: Any, labels: Tensor) -> None:
        """See the teacher's predictions (N, H, W) on the images of some latents; by default nothing is learnt."""

    def aim(self, class_shares: Tensor) -> None:
        """Be told the class shares (C,) that generated images should have, as estimated by now; by default ignored."""


def uniform(rng: torch.Generator, *shape: int) -> Tensor:
    """A tensor from [0, 1) on the rng's device."""
    return torch.rand(*shape, generator=rng, device=rng.device)


def normal(rng: torch.Generator, *shape: int) -> Tensor:
    """A tensor from N(0, 1) on the rng's device."""
    return torch.randn(*shape, generator=rng, device=rng.device)


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
