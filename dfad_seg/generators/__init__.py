"""Image generators: `sample(batch, size, rng) -> latents`, `forward(latents) -> images` in [0, 1].

To add one, write an `ImageGenerator` with these two methods and a class of its options in a file of its own, add a line
to `GENERATORS` and a test.
"""

from typing import Any

from dfad_seg.common.errors import choose
from dfad_seg.common.values import Kind, validated
from dfad_seg.generators.base import ImageGenerator, NoiseGenerator
from dfad_seg.generators.dcgan import DCGANGenerator, DCGANOptions
from dfad_seg.generators.layout import LayoutGenerator, LayoutLatents, LayoutOptions

GENERATORS: dict[str, Kind[ImageGenerator]] = {
    "dcgan": Kind(DCGANOptions, lambda options, classes, size, channels: DCGANGenerator(options, size, channels)),
    "layout": Kind(LayoutOptions, lambda options, classes, size, channels: LayoutGenerator(options, classes, channels)),
}
"""By `generator.type`; `build(options, classes=C, size=(H, W), channels=K)`."""


def build_generator(
    type: str, *, num_classes: int, image_size: tuple[int, int], in_channels: int = 3, **options: Any
) -> ImageGenerator:
    """Build a generator by name, for a teacher of `num_classes` and images of `image_size` (H, W) and `in_channels`.

    Raises:
        InputError: unknown name or option, or a size that it does not make.
    """
    kind = choose(GENERATORS, type, "generator.type")
    chosen = validated(kind.options, options, f"generator ({type})")
    return kind.build(chosen, classes=num_classes, size=image_size, channels=in_channels)
