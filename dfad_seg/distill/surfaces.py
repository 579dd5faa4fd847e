"""Other surfaces for generated images: a student that has seen few images reads classes off what happens to be in them.

A generator paints each class in a few ways, and a student from random weights takes those for the class. Images whose
surfaces are changed at random, and whose answers the teacher gives anew, teach it what the teacher makes of surfaces
that no generator paints. To add a kind, write a function `(images, rng) -> images` and a line in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dfad_seg.generators.draws import normal, uniform

LEAVES = (15, 50)
"""Least and most leaves in an image."""


def change_surfaces(images: Tensor, rng: torch.Generator) -> Tensor:
    """Images (N, 3, H, W) in [0, 1], an equal part of them changed by each of `KINDS`; as many, in the same range."""
    order = torch.randperm(len(images), generator=rng, device=rng.device)
    changed = torch.empty_like(images)
    for change, part in zip(KINDS.values(), order.tensor_split(len(KINDS)), strict=True):
        if len(part):
            changed[part] = change(images[part], rng).to(images.dtype)
    return changed.clamp(0, 1)


def random_convolution(images: Tensor, rng: torch.Generator) -> Tensor:
    """Blended with the output of a random 3×3 or 7×7 convolution of each, of the image's mean and contrast by channel
    (after RandConv, Xu et al. 2021): shapes stay, colours and fine patterns do not."""
    count, _, height, width = images.shape
    blends = []
    for side in (3, 7):
        kernels = normal(rng, 3 * count, 3, side, side)
        padded = F.pad(images.reshape(1, 3 * count, height, width), [side // 2] * 4, mode="replicate")
        filtered = F.conv2d(padded, kernels, groups=count).view_as(images)
        blends.append(torch.lerp(_contrast_of(filtered, images), images, uniform(rng, count, 1, 1, 1)))
    fine, coarse = blends
    return torch.where(uniform(rng, count, 1, 1, 1) < 0.5, fine, coarse)


def amplitudes_of_another(images: Tensor, rng: torch.Generator) -> Tensor:
    """The amplitudes of the spectrum moved towards those of another image of the batch, the phases kept (amplitude mix,
    Xu et al. 2021): edges stay where they are, light and texture become the other's."""
    spectrum = torch.fft.rfft2(images.float())
    amplitudes = spectrum.abs()
    mixed = torch.lerp(amplitudes, amplitudes.roll(1, dims=0), uniform(rng, len(images), 1, 1, 1))
    return torch.fft.irfft2(torch.polar(mixed, spectrum.angle()), s=images.shape[2:])


def blend_with_noise(images: Tensor, rng: torch.Generator) -> Tensor:
    """Blended with, or multiplied by, noise of a random power spectrum 1/f^β, or leaves (after PixMix, Hendrycks et al.
    2022)."""
    one = (len(images), 1, 1, 1)
    noise = 0.5 + 0.2 * spectral_noise(len(images), images.shape[2:], rng)
    noise = torch.where(uniform(rng, *one) < 0.5, noise, dead_leaves(images, rng))
    share = 0.2 + 0.5 * uniform(rng, *one)
    product = images * (2 * noise.clamp_min(0.01)) ** share
    return torch.where(uniform(rng, *one) < 0.5, torch.lerp(images, noise, share), product)


def dead_leaves(images: Tensor, rng: torch.Generator) -> Tensor:
    """No trace of the images: ellipses and rectangles of many sizes before one another, each of a colour and a texture
    of its own (the dead leaves model; as images to learn from, Baradad et al. 2021)."""
    count, _, height, width = images.shape
    device = rng.device
    ys = torch.arange(height, device=device).view(1, -1, 1)
    xs = torch.arange(width, device=device).view(1, 1, -1)
    picture = uniform(rng, count, 3, 1, 1).expand(count, 3, height, width)
    textures = [0.15 * spectral_noise(count, (height, width), rng) for _ in range(3)]
    number = torch.randint(LEAVES[0], LEAVES[1] + 1, (count, 1, 1), generator=rng, device=device)
    for leaf in range(LEAVES[1]):
        draws = uniform(rng, 6, count, 1, 1)
        # Radii fall off as a power, as sizes in images of the world do.
        radius = (0.03 * (1 - draws[0]).clamp_min(1e-3) ** (-1 / 1.5)).clamp_max(0.5) * min(height, width)
        down, right = ys - draws[1] * height, xs - draws[2] * width
        angle = torch.pi * draws[3]
        along = (right * angle.cos() + down * angle.sin()) / radius
        across = (down * angle.cos() - right * angle.sin()) / (radius * (0.15 + 0.85 * draws[4]))
        round_one = draws[5] < 0.5
        inside = torch.where(round_one, along.square() + across.square() < 1, along.abs().maximum(across.abs()) < 1)
        inside = (inside & (leaf < number)).unsqueeze(1)
        texture = textures[leaf % len(textures)] * uniform(rng, count, 1, 1, 1)
        picture = torch.where(inside, uniform(rng, count, 3, 1, 1) + texture, picture)
    return picture


def spectral_noise(count: int, size: tuple[int, int] | torch.Size, rng: torch.Generator) -> Tensor:
    """Noise (count, 3, H, W) of mean 0 and standard deviation 1 whose power falls as 1/f^β, β from 0 (white) to 3."""
    height, width = size
    down = torch.fft.fftfreq(height, device=rng.device).view(-1, 1)
    right = torch.fft.rfftfreq(width, device=rng.device).view(1, -1)
    frequency = (down.square() + right.square()).sqrt().clamp_min(1 / max(height, width))
    power = 3 * uniform(rng, count, 1, 1, 1)
    noise = torch.fft.irfft2(
        torch.fft.rfft2(normal(rng, count, 3, height, width)) * frequency ** (-power / 2), s=(height, width)
    )
    deviation, mean = torch.std_mean(noise, dim=(2, 3), keepdim=True)
    return (noise - mean) / deviation


KINDS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "random_convolution": random_convolution,
    "amplitudes_of_another": amplitudes_of_another,
    "blend_with_noise": blend_with_noise,
    "dead_leaves": dead_leaves,
}


def _contrast_of(changed: Tensor, images: Tensor) -> Tensor:
    """With the mean and the standard deviation of `images`, by image and channel."""
    wanted, mean = torch.std_mean(images, dim=(2, 3), keepdim=True)
    deviation, middle = torch.std_mean(changed, dim=(2, 3), keepdim=True)
    return (changed - middle) / (deviation + 1e-4) * wanted + mean
