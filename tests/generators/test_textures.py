"""The noise behind the layout generator's surfaces: its moments, how far it is alike, and that it is used."""

import pytest
import torch

from dfad_seg.common.errors import InputError
from dfad_seg.generators import build_generator
from dfad_seg.generators.textures import CELL_SIDES, TEXTURES, texture_noise


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def correlation(noise, distance):
    """Of pixels that lie `distance` apart sideways, by channel."""
    left, right = noise[..., :-distance], noise[..., distance:]
    covariance = (left * right).mean(dim=(0, 2, 3)) - left.mean(dim=(0, 2, 3)) * right.mean(dim=(0, 2, 3))
    return covariance / noise.var(dim=(0, 2, 3))


@pytest.mark.parametrize("kind", TEXTURES)
@pytest.mark.parametrize("size", [(96, 128), (37, 51), (1, 3)])
def test_moments_and_shape(kind, size):
    count = 64 if size == (96, 128) else 1024
    noise = texture_noise(kind, count, size, rng())
    assert noise.shape == (count, TEXTURES[kind], *size)
    assert noise.mean(dim=(0, 2, 3)).abs().max() < 0.12
    if size == (96, 128):
        assert noise.std(dim=(0, 2, 3)).sub(1).abs().max() < 0.3
    assert torch.equal(noise, texture_noise(kind, count, size, rng()))
    assert not torch.equal(noise, texture_noise(kind, count, size, rng(1)))


def test_what_is_alike_depends_on_the_distance_in_pixels():
    for size in ((64, 128), (256, 256)):  # at any size of the image
        near, far = (correlation(texture_noise("structured", 64, size, rng()), d) for d in (3, 40))
        white, smooth, large, small = near
        assert white.abs() < 0.05 and smooth > 0.9 and large > 0.75 and 0.2 < small < 0.7
        assert far.abs().max() < 0.2


def test_cells_are_flat_rectangles_of_different_sizes():
    noise = texture_noise("structured", 32, (128, 128), rng())
    for channel, (shortest, longest) in zip(noise[:, 2:].unbind(1), CELL_SIDES, strict=True):
        # A column border is where a whole column differs from the one before it; rows likewise.
        borders = [(channel.diff(dim=axis) != 0).float().mean(dim=3 - axis) for axis in (1, 2)]
        assert all(((share == 0) | (share == 1)).all() for share in borders)
        sides = 127 / torch.cat(borders).sum(dim=1)
        assert sides.min() > 0.8 * shortest and sides.max() < 1.25 * longest
        assert sides.max() > 1.5 * sides.min()


def test_every_channel_reaches_the_image():
    torch.manual_seed(0)
    generator = build_generator("layout", num_classes=3, image_size=(32, 32), width=4)
    latents = generator.sample(2, (32, 32), rng())
    noise = latents.noise.requires_grad_()
    generator(latents).square().sum().backward()
    assert (noise.grad.abs().amax(dim=(0, 2, 3)) > 0).all()
    white = build_generator("layout", num_classes=3, image_size=(32, 32), width=4, texture="white")
    assert white.sample(2, (32, 32), rng()).noise.shape == (2, 1, 32, 32)
    with pytest.raises(InputError, match="unknown generator.texture 'brick'"):
        build_generator("layout", num_classes=3, image_size=(32, 32), texture="brick")
