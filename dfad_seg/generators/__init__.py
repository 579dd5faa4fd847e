"""Image generators: `sample(batch, size, rng) -> latents`, `forward(latents) -> images` in [0, 1].

To add one, write an `ImageGenerator` with these two methods and a class of its options in a file of its own, add a line
to `GENERATORS` and a test.
"""

from __future__ import annotations

from typing import Any

from dfad_seg.common.values import Kind, build_kind
from dfad_seg.generators.base import ImageGenerator
from dfad_seg.generators.dcgan import DCGANGenerator, DCGANOptions
from dfad_seg.generators.layout import LayoutGenerator, LayoutLatents, LayoutOptions
from dfad_seg.generators.noise import NoiseGenerator

GENERATORS: dict[str, Kind[ImageGenerator]] = {
    "dcgan": Kind(DCGANOptions, lambda options, num_classes, image_size: DCGANGenerator(options, image_size)),
    "layout": Kind(LayoutOptions, lambda options, num_classes, image_size: LayoutGenerator(options, num_classes)),
}
"""By `generator.type`; `build(options, num_classes=C, image_size=(H, W))`."""


def build_generator(type: str, *, num_classes: int, image_size: tuple[int, int], **options: Any) -> ImageGenerator:
    """Build a generator by name, for a teacher of `num_classes` and images of `image_size` (H, W).

    Raises:
        InputError: unknown name or option, or a size that it does not make.
    """
    return build_kind(GENERATORS, type, options, "generator", num_classes=num_classes, image_size=image_size)
