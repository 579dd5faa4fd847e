"""Changed surfaces of generated images: what stays of an image, what does not, and the spectrum of the noise."""

import pytest
import torch

from dfad_seg.distill import ImageAugmentation
from dfad_seg.distill.surfaces import KINDS, change_surfaces, dead_leaves, spectral_noise


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def two_halves(count=4, size=32):
    """Dark left half, light right half, each with a little noise."""
    images = torch.full((count, 3, size, size), 0.25)
    images[..., size // 2 :] = 0.75
    return images + 0.02 * torch.rand(images.shape, generator=rng(9))


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_every_image_is_changed_within_the_range_by_the_rng_alone(count):
    images = torch.rand(count, 3, 20, 26, generator=rng(1))
    changed = change_surfaces(images, rng())
    assert changed.shape == images.shape and changed.dtype == torch.float32
    assert changed.min() >= 0 and changed.max() <= 1 and torch.isfinite(changed).all()
    assert torch.equal(changed, change_surfaces(images, rng()))
    different = [not torch.allclose(a, b, atol=1e-3) for a, b in zip(changed, images, strict=True)]
    # Alone, an image cannot take another's spectrum.
    assert sum(different) >= count - 1


@pytest.mark.parametrize("kind", ["random_convolution", "amplitudes_of_another", "blend_with_noise"])
def test_edges_stay_where_they_are(kind):
    """The step between the halves remains the strongest of the rows' steps, in most images and channels."""
    changed = KINDS[kind](two_halves(16), rng(3))
    steps = changed.mean(dim=2).diff(dim=2).abs()  # (N, 3, 31)
    middle = steps[..., 12:19].amax(dim=2) >= steps[..., 4:27].amax(dim=2)
    assert middle.float().mean() > 0.5


def test_leaves_hold_nothing_of_the_images():
    first, second = dead_leaves(two_halves(), rng()), dead_leaves(torch.zeros(4, 3, 32, 32), rng())
    assert torch.equal(first, second)
    # Mostly flat, with sharp steps: few of the differences between neighbours are not near 0.
    steps = first.diff(dim=3).abs().amax(dim=1)
    assert 0.02 < (steps > 0.1).float().mean() < 0.6


def test_the_amplitudes_lie_between_those_of_two_images():
    images = torch.rand(2, 3, 16, 16, generator=rng(2))
    mixed = torch.fft.rfft2(KINDS["amplitudes_of_another"](images, rng())).abs()
    own = torch.fft.rfft2(images).abs()
    low, high = torch.minimum(own, own.flip(0)), torch.maximum(own, own.flip(0))
    inner = (slice(None), slice(None), slice(1, 8), slice(1, 8))  # of the rest, some must be real numbers
    assert (mixed >= low - 1e-3)[inner].all() and (mixed <= high + 1e-3)[inner].all()


def test_the_power_of_the_noise_falls_with_the_frequency():
    noise = spectral_noise(64, (64, 64), rng())
    torch.testing.assert_close(noise.std(dim=(2, 3)), torch.ones(64, 3))
    power = torch.fft.rfft2(noise).abs().square()[:, :, 0].mean(dim=1)  # along the rows' frequency
    slopes = []
    frequency = torch.arange(1, 33).log()
    for line in power[:, 1:].log():
        slopes.append(
            (
                ((frequency - frequency.mean()) * (line - line.mean())).sum()
                / (frequency - frequency.mean()).square().sum()
            ).item()
        )
    assert -3.6 < min(slopes) < -2.2 and -0.3 < max(slopes) < 0.8


def test_the_share_of_the_images():
    images = torch.rand(8, 3, 16, 16, generator=rng(1))
    changed = ImageAugmentation(surfaces=0.5)(images, rng())
    assert torch.equal(changed[4:], images[4:]) and not torch.equal(changed[:4], images[:4])
