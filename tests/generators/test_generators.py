"""The generators' shared contract, and each one's own shape."""

import pytest
import torch
from shared import rng
from torch import nn

from dfad_seg.generators import GENERATORS, NoiseGenerator, build_generator
from dfad_seg.generators.layouts import CHANNELS, add_boxes, texture_noise, voronoi_cells


def build(type, size=(32, 48), **options):
    torch.manual_seed(0)
    return build_generator(type, num_classes=5, image_size=size, **options)


def tensors(latents):
    return [latents] if isinstance(latents, torch.Tensor) else list(latents)


@pytest.mark.parametrize("type", [*GENERATORS, "noise"])
@pytest.mark.parametrize(("size", "channels"), [((32, 48), 3), ((45, 60), 3), ((17, 33), 5)])
def test_contract(type, size, channels):
    generator = NoiseGenerator(channels) if type == "noise" else build(type, in_channels=channels, width=4)
    size = generator.image_size or size  # with one set of weights
    latents, again, other = (generator.sample(3, size, rng(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(tensors(latents), tensors(again), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(tensors(latents), tensors(other), strict=True))
    images = generator(latents)
    assert images.shape == (3, channels, *size) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    assert not torch.equal(images[0], images[1])
    parameters = list(generator.parameters())
    if parameters:
        images.square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)


def test_dcgan_is_the_papers():
    generator = build("dcgan", size=(128, 128), latent_dim=256)
    convolutions = [m for m in generator.modules() if isinstance(m, (nn.ConvTranspose2d, nn.Conv2d))]
    widths = [(m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding) for m in convolutions]
    four = ((4, 4), (2, 2), (1, 1))
    assert widths == [
        (512, 256, *four),
        (256, 128, *four),
        (128, 64, *four),
        (64, 64, *four),
        (64, 3, (3, 3), (1, 1), (1, 1)),
    ]
    assert generator.project.weight.shape == (512 * 8 * 8, 256)
    for module in [generator.project, *convolutions]:
        assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert module.bias.abs().max() == 0


def test_layout_decides_the_picture():
    generator = build("layout", width=4).eval()
    latents = generator.sample(1, (32, 32), rng())
    other = latents._replace(layout=(latents.layout + 1) % 5)
    restyled = latents._replace(style=latents.style + 1)
    assert not torch.allclose(generator(latents), generator(other), atol=1e-3)
    assert not torch.allclose(generator(latents), generator(restyled), atol=1e-3)


def test_layouts_have_regions_of_known_classes_as_frequent_as_asked():
    even = voronoi_cells(64, (64, 64), torch.full((5,), 0.2), rng())
    assert even.shape == (64, 64, 64) and even.dtype == torch.int64
    shares = torch.bincount(even.flatten(), minlength=5) / even.numel()
    assert len(shares) == 5 and shares.min() > 0.1
    # No speckle, and no two alike.
    alike = [(even[..., 1:] == even[..., :-1]), (even[:, 1:] == even[:, :-1])]
    assert all(part.float().mean() > 0.9 for part in alike) and len(even.flatten(1).unique(dim=0)) == 64
    uneven = voronoi_cells(128, (24, 32), torch.tensor([0.8, 0.15, 0.05]), rng())
    shares = torch.bincount(uneven.flatten(), minlength=3) / uneven.numel()
    torch.testing.assert_close(shares, torch.tensor([0.8, 0.15, 0.05]), atol=0.05, rtol=0)


def test_boxes_show_what_is_rare():
    frequencies = torch.tensor([0.9, 0.05, 0.05])
    plain = voronoi_cells(64, (32, 32), frequencies, rng())
    boxed = add_boxes(plain, frequencies, rng(1), most=10)
    assert torch.equal(add_boxes(plain, frequencies, rng(1), most=0), plain)
    in_front = boxed[plain != boxed]
    assert (in_front > 0).float().mean() > 0.8


def test_texture_noise_depends_on_the_distance_in_pixels():
    assert texture_noise(2, (1, 3), rng()).shape == (2, CHANNELS, 1, 3)
    for size in ((64, 128), (256, 256)):
        noise = texture_noise(64, size, rng())
        assert noise.shape == (64, CHANNELS, *size) and noise.mean(dim=(0, 2, 3)).abs().max() < 0.12
        assert not torch.equal(noise, texture_noise(64, size, rng(1)))
        assert noise.std(dim=(0, 2, 3)).sub(1).abs().max() < 0.3
        near, far = (correlation(noise, distance) for distance in (3, 40))
        white, smooth, large, small = near
        assert white.abs() < 0.05 and smooth > 0.9 and large > 0.75 and 0.2 < small < 0.7
        assert far.abs().max() < 0.2


def correlation(noise, distance):
    """Of pixels that lie `distance` apart sideways, by channel."""
    left, right = noise[..., :-distance], noise[..., distance:]
    covariance = (left * right).mean(dim=(0, 2, 3)) - left.mean(dim=(0, 2, 3)) * right.mean(dim=(0, 2, 3))
    return covariance / noise.var(dim=(0, 2, 3))


def test_recalled_layouts_are_earlier_predictions():
    generator = build("layout", width=4, recalled=0.9, boxes=0)
    latents = generator.sample(8, (24, 32), rng())
    prediction = torch.zeros(8, 24, 32, dtype=torch.long)
    prediction[:, :, 20:] = 4

    def recalled(size=(24, 32)):
        layouts = generator.sample(64, size, rng(3)).layout
        expected = torch.nn.functional.interpolate(prediction[:1, None].float(), size, mode="nearest")[0, 0].long()
        found = [(layouts == example).float().mean(dim=(1, 2)) > 0.97 for example in (expected, expected.flip(1))]
        return [int(part.sum()) for part in found]

    generator.observe(latents, prediction)
    assert recalled() == [0, 0]  # too few to begin with
    for _ in range(4):
        generator.observe(latents, prediction)
    as_it_was, mirrored = recalled()
    assert as_it_was > 15 and mirrored > 15 and 50 < as_it_was + mirrored < 64
    assert sum(recalled((48, 64))) > 50  # at any size
    for _ in range(40):  # older ones give way
        generator.observe(latents, torch.ones_like(prediction))
    assert sum(recalled()) == 0
    clone = build("layout", width=4, recalled=0.9, boxes=0)
    clone.load_state_dict(generator.state_dict())
    assert torch.equal(clone.sample(8, (24, 32), rng(5)).layout, generator.sample(8, (24, 32), rng(5)).layout)


def test_aimed_at_shares_steer_regions_and_recalled_predictions():
    generator = build("layout", width=4, recalled=0.99, boxes=0)
    latents = generator.sample(8, (24, 32), rng())
    labels = torch.zeros(8, 24, 32, dtype=torch.long)
    labels[:, :, 8:] = 1
    labels[4:, :12] = 2  # class 2 fills half of every other prediction, classes 0 and 1 share the rest 1 : 3
    for _ in range(8):
        generator.observe(latents, labels)

    def shares():
        layouts = generator.sample(400, (24, 32), rng(3)).layout
        return torch.bincount(layouts.flatten(), minlength=5) / layouts.numel()

    before = shares()
    assert before[2].item() == pytest.approx(0.25, abs=0.05)
    target = torch.full((5,), 0.01)
    target[:3] = torch.tensor([0.15, 0.45, 0.38])
    generator.aim(target)
    torch.testing.assert_close(generator.class_frequencies, target / target.sum())
    after = shares()
    assert after[2].item() == pytest.approx(target[2].item(), abs=0.05)
    assert (after[1] / after[0]).item() == pytest.approx(3, abs=0.6)
    generator.aim(torch.eye(5)[2] * 0.99 + 0.002)  # beyond what the predictions hold: as near as they can be
    assert shares()[2].item() == pytest.approx(0.5, abs=0.05)


def test_the_exponent_evens_out_frequencies():
    given = torch.tensor([0.64, 0.16, 0.04, 0.09, 0.07])
    for exponent, expected in ((1.0, given), (0.5, [0.8, 0.4, 0.2, 0.3, 0.07**0.5]), (0.0, [1.0] * 5)):
        generator = build("layout", frequency_exponent=exponent)
        generator.aim(given)
        expected = torch.as_tensor(expected)
        torch.testing.assert_close(generator.class_frequencies, expected / expected.sum())


def test_sub_generators_share_a_batch():
    generator = build("layout", width=4, sub_generators=3)
    first, second, third = generator.sub_generators
    assert not torch.equal(first.to_image.weight, second.to_image.weight)
    latents = generator.sample(7, (24, 32), rng())
    images = generator(latents)
    for place, network in enumerate((first, second, third)):
        alone = build("layout", width=4)
        alone.sub_generators[0].load_state_dict(network.state_dict())
        mine = latents._make(tensor[place::3] for tensor in latents)
        assert torch.allclose(alone(mine), images[place::3], atol=1e-6)
    images[1].sum().backward()  # the second network's, and no one else's
    assert all(p.grad.any() for p in second.parameters())
    assert not any(p.grad.any() for network in (first, third) for p in network.parameters())
    few = latents._make(t[:2] for t in latents)  # fewer images than networks
    assert torch.allclose(generator(few), images[:2], atol=1e-6)
