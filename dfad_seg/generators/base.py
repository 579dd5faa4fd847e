"""What every image generator is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError


class ImageGenerator(nn.Module):
    """`sample(batch, size, rng)` draws latents; `forward(latents)` makes images (N, 3, H, W) in [0, 1] of them.

    Latents are whatever the generator likes: a tensor, or a named tuple of tensors.
    """

    def sample(self, batch: int, size: tuple[int, int], rng: torch.Generator) -> Any:
        """Latents of `batch` images of `size` (H, W), from nothing but `rng`, on its device."""
        raise TypeError(f"{type(self).__name__} does not say how to sample latents")

    def forward(self, latents: Any) -> Tensor:
        """Images (N, 3, H, W), float32 in [0, 1]."""
        raise TypeError(f"{type(self).__name__} does not say how to make images")

    def observe(self, latents: Any, labels: Tensor) -> None:
        """See the teacher's answers (N, H, W) on the images of some latents; by default nothing is learnt from them."""

    def aim(self, class_shares: Tensor) -> None:
        """Be told the class shares (C,) that generated images should have, as estimated by now; by default ignored."""


def at_least(name: str, value: Any, least: int) -> None:
    """Check an integer option of a generator; raises InputError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"generator.{name} is {value!r}; it must be a whole number of at least {least}.")
