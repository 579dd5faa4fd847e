"""A conditional, fully convolutional generator: semantic layout and noise in, an image of any size out."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfad_seg.errors import InputError, choose
from dfad_seg.generators.base import ImageGenerator, at_least
from dfad_seg.generators.layouts import LAYOUTS, random_layouts


class LayoutLatents(NamedTuple):
    """What a layout generator turns into a batch of images."""

    layout: Tensor
    """(N, H, W) class ids."""
    style: Tensor
    """(N, style_dim) from N(0, 1): the look of each class in this image."""
    noise: Tensor
    """(N, 1, H, W) from N(0, 1): texture."""


class LayoutGenerator(ImageGenerator):
    """Layouts with noise → images (N, 3, H, W) in [0, 1], at the layout's own size.

    A coarse-to-fine stack of convolutions. At every scale the features are normalised and then scaled and shifted
    per pixel by what its class is (class-adaptive normalisation, after SPADE, Park et al. 2019, and CLADE, Tan
    et al. 2021); scale and shift also depend on the image's style vector, so one class has many looks, and noise is
    added for texture. There is no layer of fixed size: one set of weights makes 128×128 crops and full frames.

    Args:
        num_classes: number of layout classes, the teacher's.
        style_dim: length of the style vector.
        width: channels at full resolution; each halving of the resolution doubles them up to `8 * width`.
        scales: number of halvings; sizes need not be divisible.
        layouts: kind of random layouts, a name of `LAYOUTS` or `"mixed"`.
        class_frequencies: `"uniform"`: classes are equally likely everywhere; `"teacher"`: half so, and half by how
            often the teacher answers them at that height of generated images.

    Raises:
        InputError: fewer than 2 classes, or an option out of range.
    """

    ROWS = 12
    """Bands of the image in which class frequencies are learnt."""

    def __init__(
        self,
        *,
        num_classes: int,
        style_dim: int = 32,
        width: int = 24,
        scales: int = 4,
        layouts: str = "voronoi",
        class_frequencies: str = "teacher",
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise InputError(f"a layout generator needs at least 2 classes, got {num_classes}.")
        at_least("style_dim", style_dim, 1)
        at_least("width", width, 1)
        at_least("scales", scales, 0)
        if layouts != "mixed":
            choose(LAYOUTS, layouts, "generator.layouts")
        choose(dict.fromkeys(("teacher", "uniform")), class_frequencies, "generator.class_frequencies")
        self.layouts = layouts
        self.class_frequencies = class_frequencies
        self.num_classes = num_classes
        self.style_dim = style_dim
        self.scales = scales
        channels = [width * min(2**level, 8) for level in range(scales, -1, -1)]
        self.stem = nn.Conv2d(num_classes + 1, channels[0], kernel_size=3, padding=1)
        self.blocks = nn.ModuleList(
            _ModulatedBlock(c_in, c_out, num_classes, style_dim)
            for c_in, c_out in zip([channels[0], *channels[:-1]], channels, strict=True)
        )
        self.to_image = nn.Conv2d(channels[-1], 3, kernel_size=3, padding=1)
        self.class_by_row: Tensor
        self.register_buffer("class_by_row", torch.full((num_classes, self.ROWS), 1 / num_classes))

    def sample(self, batch: int, size: tuple[int, int], rng: torch.Generator) -> LayoutLatents:
        """Random layouts, styles and noise for `batch` images of `size` (H, W), on the rng's device."""
        # Half by what the teacher believes, half uniform: no class ever dies out.
        by_row = 0.5 * self.class_by_row + 0.5 / self.num_classes
        layouts = random_layouts(batch, size, self.num_classes, rng, kind=self.layouts, class_by_row=by_row)
        return self.sample_looks(layouts, rng)

    @torch.no_grad()
    def observe(self, labels: Tensor) -> None:
        """Learn from the teacher's answers (N, H, W) on generated images where its classes live.

        Sky is above and road below in its answers wherever an image leaves it the choice; layouts that agree with
        that are ones that it can confirm.
        """
        if self.class_frequencies == "uniform":
            return
        bands = self._one_hot(labels).float().mean(dim=(0, 3))  # (C, H)
        seen = F.adaptive_avg_pool1d(bands.unsqueeze(0), self.ROWS).squeeze(0)
        self.class_by_row.lerp_(seen, 0.02)

    def _one_hot(self, labels: Tensor) -> Tensor:
        """(N, H, W) → bool (N, C, H, W). Not `F.one_hot`, which checks the labels and so makes a GPU's queue wait."""
        ids = torch.arange(self.num_classes, device=labels.device)
        return labels.unsqueeze(1) == ids[:, None, None]

    def sample_looks(self, layout: Tensor, rng: torch.Generator) -> LayoutLatents:
        """Styles and noise for given layouts (N, H, W)."""
        batch, height, width = layout.shape
        style = torch.randn(batch, self.style_dim, generator=rng, device=rng.device)
        noise = torch.randn(batch, 1, height, width, generator=rng, device=rng.device)
        return LayoutLatents(layout, style, noise)

    def forward(self, latents: LayoutLatents) -> Tensor:
        layout, style, noise = latents
        height, width = layout.shape[1:]
        one_hot = self._one_hot(layout).to(noise.dtype)
        x = None
        for level, block in zip(range(self.scales, -1, -1), self.blocks, strict=True):
            size = (-(-height // 2**level), -(-width // 2**level))
            classes = one_hot if level == 0 else F.adaptive_avg_pool2d(one_hot, size)
            # White noise stays white when subsampled, while pooling would fade it.
            texture = noise[:, :, :: 2**level, :: 2**level]
            if x is None:
                x = self.stem(torch.cat([classes, texture], dim=1))
            else:
                x = F.interpolate(x, size, mode="nearest")
            x = block(x, classes, style, texture)
        return torch.sigmoid(self.to_image(x).float())


class _ModulatedBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int, num_classes: int, style_dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel_size=3, padding=1, bias=False)
        self.norm = nn.GroupNorm(1, c_out, affine=False)
        self.class_looks = nn.Parameter(torch.randn(num_classes, 2 * c_out) * 0.5)
        self.style_looks = nn.Linear(style_dim, num_classes * 2 * c_out)
        nn.init.normal_(self.style_looks.weight, 0.0, 0.5 / style_dim**0.5)
        nn.init.zeros_(self.style_looks.bias)
        self.texture = nn.Parameter(torch.randn(num_classes, c_out) * 0.2)

    def forward(self, x: Tensor, classes: Tensor, style: Tensor, texture: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        batch, num_classes, height, width = classes.shape
        looks = self.class_looks + self.style_looks(style).view(batch, num_classes, -1)
        looks = torch.cat([looks, self.texture.expand(batch, -1, -1).to(looks)], dim=2)
        # (N, 3C, K) @ (N, K, HW): each pixel takes its class's scale, shift and texture strength.
        per_pixel = looks.transpose(1, 2) @ classes.flatten(2).to(looks)
        scale, shift, strength = per_pixel.view(batch, -1, height, width).chunk(3, dim=1)
        return F.leaky_relu(x * (1 + scale) + shift + strength * texture, 0.2)
