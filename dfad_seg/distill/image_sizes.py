"""The sizes of the images that the data-free loop generates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageSizes:
    """Which size the images of an iteration have.

    Args:
        base: (H, W), the size of previews, and of all images without `sizes`.
        batch: images of the base size per step; other sizes get as many as have about the same pixels.
        sizes: go one after the other, in equal parts of the run.
        iterations: length of the run.
    """

    base: tuple[int, int]
    batch: int
    sizes: tuple[tuple[int, int], ...]
    iterations: int

    def at(self, iteration: int) -> tuple[tuple[int, int], int]:
        """Size (H, W) and batch of an iteration."""
        if not self.sizes:
            return self.base, self.batch
        size = self.sizes[min(iteration * len(self.sizes) // self.iterations, len(self.sizes) - 1)]
        return size, self.batch_of(size)

    def batch_of(self, size: tuple[int, int]) -> int:
        """How many images of a size (H, W) have about the pixels of a batch of the base size; at least 1."""
        same_pixels = self.batch * self.base[0] * self.base[1] / (size[0] * size[1])
        return max(1, round(same_pixels))
