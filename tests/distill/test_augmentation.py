"""Augmentation of generated images."""

import pytest
import torch

from dfad_seg.distill import ImageAugmentation
from dfad_seg.distill.image_sizes import ImageSizes


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "options", [{"photometric": 1.0}, {"geometric": True}, {"photometric": 0.5, "geometric": True}]
)
def test_changes_every_image_within_the_range_by_the_rng_alone(options):
    images = torch.rand(6, 3, 20, 26, generator=rng(1))
    augment = ImageAugmentation(**options)
    changed = augment(images, rng())
    assert changed.shape == images.shape and changed.dtype == torch.float32
    assert changed.min() >= 0 and changed.max() <= 1
    assert all(not torch.allclose(a, b, atol=1e-3) for a, b in zip(changed, images, strict=True))
    assert torch.equal(changed, augment(images, rng()))
    assert not torch.equal(changed, augment(images, rng(5)))


def test_nothing_asked_nothing_changed():
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(ImageAugmentation()(images, rng()), images)


@pytest.mark.parametrize("share, count, changed", [(0.1, 4, 1), (0.5, 1, 1), (0.75, 8, 6), (0.7, 10, 7), (1, 3, 3)])
def test_a_share_of_surfaces_is_rounded_up(share, count, changed):
    images = torch.rand(count, 3, 16, 16, generator=rng(1))
    other = ImageAugmentation(surfaces=share)(images, rng())
    assert [not torch.equal(a, b) for a, b in zip(other, images, strict=True)] == [i < changed for i in range(count)]


def test_photometric_changes_move_no_edge():
    """A black and a white half stay on their sides, whatever their new colours are."""
    images = torch.zeros(8, 3, 16, 16)
    images[..., 8:] = 1
    changed = ImageAugmentation(photometric=0.6)(images, rng())
    assert (changed[..., 10:].mean(dim=(1, 2, 3)) > changed[..., :6].mean(dim=(1, 2, 3)) + 0.1).all()
    assert changed[..., :6].flatten(2).std(dim=2).max() < 1e-5


def test_geometry_makes_no_new_colours():
    """Half of the images are mirrored: a ramp to the right then falls to the right. Nothing is filled in."""
    ramp = torch.linspace(0.25, 0.75, 32).expand(64, 3, 24, 32)
    changed = ImageAugmentation(geometric=True)(ramp, rng())
    assert changed.min() >= 0.25 - 1e-5 and changed.max() <= 0.75 + 1e-5
    middle = changed[:, 0, 12, 12:20]
    falling = int((middle[:, -1] < middle[:, 0]).sum())
    assert 16 < falling < 48


def test_sizes():
    alone = ImageSizes((8, 8), 4, (), "mixed", 10)
    assert alone.at(3, rng()) == ((8, 8), 4)
    grow = ImageSizes((8, 8), 4, ((8, 8), (16, 16), (64, 64)), "progressive", 9)
    assert [grow.at(i, rng()) for i in (0, 2, 3, 5, 6, 8)] == [((8, 8), 4)] * 2 + [((16, 16), 1)] * 2 + [
        ((64, 64), 1)
    ] * 2
    mixed = ImageSizes((8, 8), 4, ((8, 8), (4, 16)), "mixed", 9)
    drawn = {mixed.at(0, rng(seed)) for seed in range(20)}
    assert drawn == {((8, 8), 4), ((4, 16), 4)}
