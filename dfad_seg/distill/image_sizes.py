"""The sizes of the images that the data-free loop generates."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ImageSizes:
    """Which size the images of an iteration have.

    Args:
        base: (H, W), the size of previews and BatchNorm recalibration.
        batch: images of the base size per step; other sizes get as many as have about the same pixels.
        sizes: the sizes to choose from; empty: the base alone.
        order: `"mixed"` draws one at random for every iteration; `"progressive"` goes through them in equal parts of
            the run.
        iterations: length of the run.
    """

    base: tuple[int, int]
    batch: int
    sizes: tuple[tuple[int, int], ...]
    order: str
    iterations: int

    def at(self, iteration: int, rng: torch.Generator) -> tuple[tuple[int, int], int]:
        """Size (H, W) and batch of an iteration."""
        if not self.sizes:
            return self.base, self.batch
        if self.order == "mixed":
            place = int(torch.randint(len(self.sizes), (), generator=rng, device=rng.device))
        else:
            place = iteration * len(self.sizes) // self.iterations
        size = self.sizes[min(place, len(self.sizes) - 1)]
        return size, self.batch_of(size)

    def batch_of(self, size: tuple[int, int]) -> int:
        """How many images of a size (H, W) have about the pixels of a batch of the base size; at least 1."""
        same_pixels = self.batch * self.base[0] * self.base[1] / (size[0] * size[1])
        return max(1, round(same_pixels))
