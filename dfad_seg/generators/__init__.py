"""Image generators: `sample(batch, size, rng) -> latents`, `forward(latents) -> images` in [0, 1].

To add one, write an `ImageGenerator` with these two methods in a file of its own, add a line to
`GENERATORS` and a test.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from dfad_seg.common.errors import InputError, choose, nearest
from dfad_seg.generators.base import ImageGenerator
from dfad_seg.generators.dcgan import DCGANGenerator
from dfad_seg.generators.layout import LayoutGenerator, LayoutLatents
from dfad_seg.generators.noise import NoiseGenerator

GENERATORS: dict[str, Callable[..., ImageGenerator]] = {
    "dcgan": DCGANGenerator,
    "layout": LayoutGenerator,
    "noise": NoiseGenerator,
}


def build_generator(type: str, *, num_classes: int, image_size: tuple[int, int], **options: Any) -> ImageGenerator:
    """Build a generator by name; it takes what it needs of `num_classes` and `image_size` (H, W).

    Raises:
        InputError: unknown name or option.
    """
    build = choose(GENERATORS, type, "generator.type")
    known = [name for name in inspect.signature(build).parameters if name not in ("num_classes", "image_size")]
    known = [] if known == ["args", "kwargs"] else known
    for name in options:
        if name not in known:
            accepted = ", ".join(known) or "none"
            raise InputError(
                f"generator.{name}: the {type} generator has no such option.{nearest(name, known)} Options: {accepted}."
            )
    context = {"num_classes": num_classes, "image_size": tuple(image_size)}
    wanted = inspect.signature(build).parameters
    return build(**{k: v for k, v in context.items() if k in wanted}, **options)


__all__ = [
    "GENERATORS",
    "DCGANGenerator",
    "ImageGenerator",
    "LayoutGenerator",
    "LayoutLatents",
    "NoiseGenerator",
    "build_generator",
]
