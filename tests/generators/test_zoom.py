"""Enlarged parts of label maps and of recalled answers."""

import pytest
import torch

from dfad_seg.common.errors import InputError
from dfad_seg.generators import build_generator
from dfad_seg.generators.layouts import parts

CLASSES = 64


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def build(zoom, **options):
    torch.manual_seed(0)
    defaults = {"width": 2, "scales": 1, "recalled": 0.9, "boxes": 0, "class_positions": "anywhere"}
    return build_generator("layout", num_classes=CLASSES, image_size=(64, 64), zoom=zoom, **defaults | options)


def columns(batch):
    """Answers whose class is the column, so that a layout tells which columns it shows."""
    return torch.arange(64).expand(batch, 64, 64)


def filled(zoom, **options):
    generator = build(zoom, **options)
    whole = generator.sample(64, (64, 64), rng())
    for _ in range(4):
        generator.observe(whole._replace(zoomed=torch.zeros(64, dtype=torch.bool)), columns(64))
    return generator


def test_parts_are_slices_and_their_mirror_images():
    maps = torch.randint(0, 255, (3, 8, 12), generator=rng(), dtype=torch.uint8)
    seen = torch.tensor([[0.5, 0.25, 1.0], [0.5, 1.0, 1.0]])
    places = torch.tensor([[0.0, 1.0, 0.3], [1.0, 0.7, 0.9]])
    found = parts(maps, (8, 12), seen, places, torch.tensor([False, True, False]))
    enlarged = maps[0, :4, 6:].repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(found[0], enlarged.long())
    assert torch.equal(found[1], maps[1, 6:].repeat_interleave(4, 0).flip(1).long())
    assert torch.equal(found[2], maps[2].long())
    assert found.dtype == torch.int64


def test_half_of_the_recalled_layouts_are_enlarged_parts():
    latents = filled(4.0, recalled=0.99).sample(400, (64, 64), rng(1))
    seen = (latents.layout.amax(dim=(1, 2)) - latents.layout.amin(dim=(1, 2)) + 1) / 64
    assert 0.4 < latents.zoomed.float().mean() < 0.6
    assert (seen[~latents.zoomed] > 0.95).float().mean() > 0.95  # the rest are random regions
    enlarged = seen[latents.zoomed]
    assert enlarged.min() >= 0.25 - 0.02 and enlarged.max() <= 1
    assert enlarged.median().item() == pytest.approx(0.5, abs=0.08)  # factors are log-uniform in [1, 4]
    first = latents.layout[latents.zoomed].amin(dim=(1, 2))
    assert first.min() <= 4 and first.max() >= 40  # from anywhere in the answer


def test_random_regions_are_never_enlarged():
    latents = build(4.0).sample(32, (64, 64), rng())
    assert not latents.zoomed.any()  # there are no answers yet
    assert not filled(1.0).sample(64, (64, 64), rng()).zoomed.any()


def test_answers_to_enlarged_layouts_are_not_recalled():
    generator = filled(2.0, class_positions="teacher")
    latents = generator.sample(8, (64, 64), rng(2))
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    half = torch.arange(8) < 4
    labels = torch.where(half[:, None, None], 5, 6).expand(8, 64, 64)
    generator.observe(latents._replace(zoomed=torch.ones(8, dtype=torch.bool)), labels)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    generator.observe(latents._replace(zoomed=half), labels)
    assert (generator.answers[:4] == 6).all() and not (generator.answers == 5).all(dim=(1, 2)).any()
    assert generator.answered == before["answered"] + 4
    assert torch.isfinite(generator.class_by_row()).all()


@pytest.mark.parametrize("zoom", [0.5, float("nan"), "2", 17])
def test_a_zoom_out_of_range_is_refused(zoom):
    with pytest.raises(InputError, match=r"generator.zoom is .*; it must be a number in \[1, 16\]"):
        build(zoom)


def test_a_zoom_without_recalled_layouts_is_refused():
    with pytest.raises(InputError, match="zoom enlarges recalled layouts"):
        build(2.0, recalled=0.0)
