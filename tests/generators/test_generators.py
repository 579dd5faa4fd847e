"""The generators' shared contract, and each one's own shape."""

import copy

import pytest
import torch
from torch import nn

from dfad_seg.common.errors import InputError
from dfad_seg.generators import GENERATORS, build_generator
from dfad_seg.generators.layouts import LAYOUTS, add_boxes, crop_label_maps, random_regions

ANY_SIZE = [(32, 32), (45, 60), (17, 33)]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def build(type, size=(32, 48), **options):
    torch.manual_seed(0)
    return build_generator(type, num_classes=5, image_size=size, **options)


def tensors(latents):
    return [latents] if isinstance(latents, torch.Tensor) else list(latents)


@pytest.mark.parametrize("type", sorted(GENERATORS))
def test_contract(type):
    generator = build(type)
    latents = generator.sample(3, (32, 48), rng())
    again = generator.sample(3, (32, 48), rng())
    other = generator.sample(3, (32, 48), rng(1))
    assert all(torch.equal(a, b) for a, b in zip(tensors(latents), tensors(again), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(tensors(latents), tensors(other), strict=True))
    images = generator(latents)
    assert images.shape == (3, 3, 32, 48) and images.dtype == torch.float32
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


def test_dcgan_refuses_other_sizes():
    with pytest.raises(InputError, match="multiples of 16, and image_size is 45x60"):
        build("dcgan", size=(45, 60))
    with pytest.raises(InputError, match="32, 48"):
        build("dcgan").sample(1, (64, 64), rng())


@pytest.mark.parametrize("size", ANY_SIZE)
def test_layout_generator_makes_any_size_with_one_set_of_weights(size):
    generator = build("layout", width=4)
    assert generator(generator.sample(2, size, rng())).shape == (2, 3, *size)


def test_layout_decides_the_picture():
    generator = build("layout", width=4).eval()
    latents = generator.sample(1, (32, 32), rng())
    other = latents._replace(layout=(latents.layout + 1) % 5)
    restyled = latents._replace(style=latents.style + 1)
    assert not torch.allclose(generator(latents), generator(other), atol=1e-3)
    assert not torch.allclose(generator(latents), generator(restyled), atol=1e-3)


@pytest.mark.parametrize("kind", [*LAYOUTS, "mixed"])
def test_layouts_hold_only_known_classes_and_follow_frequencies(kind):
    layouts = random_regions(kind, 64, (24, 32), torch.full((5, 1), 0.2), rng())
    assert layouts.shape == (64, 24, 32) and layouts.dtype == torch.int64
    shares = torch.bincount(layouts.flatten(), minlength=5) / layouts.numel()
    assert shares.sum().item() == pytest.approx(1) and shares.min() > 0.1
    # Class 0 above and class 1 below, by the given frequencies of two bands; the rest never.
    prior = torch.tensor([[1.0, 1e-6], [1e-6, 1.0], [1e-6, 1e-6], [1e-6, 1e-6], [1e-6, 1e-6]])
    sorted_ones = random_regions(kind, 64, (24, 32), prior, rng())
    assert (sorted_ones <= 1).all()
    assert (sorted_ones[:, :4] == 0).float().mean() > 0.7 and (sorted_ones[:, -4:] == 1).float().mean() > 0.7


@pytest.mark.parametrize("kind", LAYOUTS)
def test_layouts_have_regions_not_speckle(kind):
    layouts = random_regions(kind, 16, (64, 64), torch.full((8, 1), 1 / 8), rng())
    alike = [(layouts[..., 1:] == layouts[..., :-1]), (layouts[:, 1:] == layouts[:, :-1])]
    assert all(part.float().mean() > 0.9 for part in alike)
    assert layouts.flatten(1).unique(dim=0).shape[0] == 16  # no two are the same
    assert sum(len(layout.unique()) > 1 for layout in layouts) >= 12


def test_options_are_checked():
    with pytest.raises(InputError, match="unknown generator.layouts 'voronoy'"):
        build("layout", layouts="voronoy")
    with pytest.raises(InputError, match="unknown generator.class_positions 'real'"):
        build("layout", class_positions="real")
    for wrong in ("real", [1, 2], [1, 1, 1, 1, 0], [1, 1, 1, 1, "a"]):
        with pytest.raises(InputError, match="it must be uniform, statistics .* or 5 positive numbers"):
            build("layout", class_frequencies=wrong)
    with pytest.raises(InputError, match=r"recalled is 1; it must be a number in \[0, 1\)"):
        build("layout", recalled=1)
    with pytest.raises(InputError, match=r"frequency_exponent is 2; it must be a number in \[0, 1\]"):
        build("layout", frequency_exponent=2)
    with pytest.raises(InputError, match="position_sharpness is -1"):
        build("layout", position_sharpness=-1)


def test_classes_are_as_frequent_as_asked():
    generator = build("layout", width=4, class_frequencies=[8, 1, 1, 1, 1], class_positions="anywhere")
    shares = torch.bincount(generator.sample(128, (24, 32), rng()).layout.flatten(), minlength=5) / (128 * 24 * 32)
    assert shares[0] > 0.5 and shares[1:].min() > 0.02  # boxes show the rare ones


def test_boxes_show_what_is_rare():
    prior = torch.tensor([[0.9], [0.05], [0.05]])
    plain = random_regions("voronoi", 64, (32, 32), prior, rng())
    boxed = add_boxes(plain, prior, rng(1), boxes=(5, 10))
    assert torch.equal(add_boxes(plain, prior, rng(1), boxes=(0, 0)), plain)
    in_front = boxed[plain != boxed]
    assert (in_front > 0).float().mean() > 0.8


def observing(**options):
    """A generator whose layouts ask for class 2 everywhere and whose teacher sees 0 above and 3 below."""
    generator = build("layout", width=4, **options)
    latents = generator.sample(2, (24, 32), rng())
    latents = latents._replace(layout=torch.full_like(latents.layout, 2))
    labels = torch.zeros(2, 24, 32, dtype=torch.long)
    labels[:, 12:] = 3
    for _ in range(100):
        generator.observe(latents, labels)
    return generator


def test_layout_generator_learns_where_classes_live():
    by_row = observing().class_by_row()
    torch.testing.assert_close(by_row.sum(0), torch.ones(by_row.shape[1]))
    assert (by_row[0, :6] > 2 * by_row[0, 6:]).all() and (by_row[3, 6:] > 2 * by_row[3, :6]).all()
    layouts = observing().sample(64, (24, 32), rng()).layout
    assert (layouts[:, :4] == 0).float().mean() > 2 * (layouts[:, -4:] == 0).float().mean()


def test_recalled_layouts_are_earlier_answers():
    generator = build("layout", width=4, recalled=0.9, boxes=0, class_positions="anywhere")
    latents = generator.sample(8, (24, 32), rng())
    answer = torch.zeros(8, 24, 32, dtype=torch.long)
    answer[:, :, 20:] = 4

    def recalled(size=(24, 32)):
        layouts = generator.sample(64, size, rng(3)).layout
        expected = torch.nn.functional.interpolate(answer[:1, None].float(), size, mode="nearest")[0, 0].long()
        found = [(layouts == example).float().mean(dim=(1, 2)) > 0.97 for example in (expected, expected.flip(1))]
        return [int(part.sum()) for part in found]

    generator.observe(latents, answer)
    assert recalled() == [0, 0]  # too few to begin with
    for _ in range(4):
        generator.observe(latents, answer)
    as_it_was, mirrored = recalled()
    assert as_it_was > 15 and mirrored > 15 and 50 < as_it_was + mirrored < 64
    assert sum(recalled((48, 64))) > 50  # at any size
    for _ in range(40):  # older answers give way
        generator.observe(latents, torch.ones_like(answer))
    assert sum(recalled()) == 0
    clone = build("layout", width=4, recalled=0.9, boxes=0, class_positions="anywhere")
    clone.load_state_dict(generator.state_dict())
    assert torch.equal(clone.sample(8, (24, 32), rng(5)).layout, generator.sample(8, (24, 32), rng(5)).layout)


def test_of_more_answers_than_can_be_remembered_the_last_count():
    generator = build("layout", width=4, recalled=0.9, class_positions="anywhere")
    many = generator.ANSWERS + 44
    labels = (torch.arange(many) % 5).view(-1, 1, 1).expand(-1, 16, 16)
    generator.observe(generator.sample(1, (16, 16), rng()), labels)
    assert generator.answered == generator.ANSWERS
    assert torch.equal(generator.answer_shares.argmax(dim=1), generator.answers[:, 0, 0].long())
    assert torch.equal(generator.answers[:, 0, 0].long(), labels[44:, 0, 0])


def test_aimed_at_shares_steer_regions_and_recalled_answers():
    generator = build("layout", width=4, recalled=0.99, boxes=0, class_positions="anywhere")
    latents = generator.sample(8, (24, 32), rng())
    answers = torch.zeros(8, 24, 32, dtype=torch.long)
    answers[:, :, 8:] = 1
    answers[4:, :12] = 2  # class 2 fills half of every other answer, classes 0 and 1 share the rest 1 : 3
    for _ in range(8):
        generator.observe(latents, answers)

    def shares():
        layouts = generator.sample(400, (24, 32), rng(3)).layout
        return torch.bincount(layouts.flatten(), minlength=5) / layouts.numel()

    before = shares()
    assert before[2].item() == pytest.approx(0.25, abs=0.05)
    target = torch.full((5,), 0.01)
    target[:3] = torch.tensor([0.15, 0.45, 0.38])
    generator.aim(target)
    assert torch.equal(generator.class_frequencies, target)
    after = shares()
    assert after[2].item() == pytest.approx(target[2].item(), abs=0.05)
    assert (after[1] / after[0]).item() == pytest.approx(3, abs=0.6)
    generator.aim(torch.eye(5)[2] * 0.99 + 0.002)  # beyond what the answers hold: as near as they can be
    assert shares()[2].item() == pytest.approx(0.5, abs=0.05)


def test_the_exponent_evens_out_frequencies():
    given = [0.64, 0.16, 0.04, 0.09, 0.07]
    for exponent, expected in ((1.0, given), (0.5, [0.8, 0.4, 0.2, 0.3, 0.07**0.5]), (0.0, [1.0] * 5)):
        generator = build("layout", class_frequencies=given, frequency_exponent=exponent)
        expected = torch.tensor(expected) / sum(expected)
        torch.testing.assert_close(generator.class_frequencies, expected)
        generator.aim(torch.tensor(given).flip(0))
        torch.testing.assert_close(generator.class_frequencies, expected.flip(0))


def test_renewing_keeps_what_was_learnt_about_the_teacher():
    generator = observing()
    generator.aim(torch.tensor([0.1, 0.2, 0.3, 0.3, 0.1]))
    learnt = {name: buffer.clone() for name, buffer in generator.named_buffers()}
    torch.manual_seed(9)
    fresh = type(generator)(num_classes=5, width=4, recalled=generator.recalled)
    assert list(map(id, generator.renew(fresh))) == list(map(id, generator.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(generator.parameters(), fresh.parameters(), strict=True))
    assert all(torch.equal(buffer, learnt[name]) for name, buffer in generator.named_buffers())
    plain, other = (build("dcgan") for _ in range(2))
    with torch.no_grad():
        next(other.parameters()).add_(1)
    plain.renew(other)
    assert torch.equal(next(plain.parameters()), next(other.parameters()))


def test_painters_are_renewed_in_turn():
    generator, fresh = (build("layout", painters=3) for _ in range(2))

    def renewed():
        pairs = zip(generator.painters, fresh.painters, strict=True)
        return [all(map(torch.equal, a.parameters(), b.parameters())) for a, b in pairs]

    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.add_(1)
    assert renewed() == [False, False, False]
    assert list(map(id, generator.renew(fresh, 4))) == list(map(id, generator.painters[1].parameters()))
    assert renewed() == [False, True, False]
    generator.renew(fresh, 5)
    assert renewed() == [False, True, True]


def test_what_layouts_ask_for_is_no_evidence():
    """A teacher that confirms every layout teaches nothing, wherever the layouts put their classes."""
    generator = build("layout", width=4)
    latents = generator.sample(2, (24, 32), rng())
    latents = latents._replace(layout=torch.arange(24).div(5, rounding_mode="floor").view(1, 24, 1).expand(2, 24, 32))
    before = generator.class_by_row()
    for _ in range(20):
        generator.observe(latents, latents.layout)
    after = generator.class_by_row()
    # Fewer chances where a class was asked for, and no hit anywhere: a faint trace of the counts begun with remains.
    assert ((after / before).log().abs() < 1.5).all()
    assert (observing(class_positions="anywhere").class_by_row() == before).all()


def test_noise_is_uniform_and_white():
    images = build("noise").sample(64, (32, 32), rng())
    assert images.mean().item() == pytest.approx(0.5, abs=0.01)
    assert images.std().item() == pytest.approx((1 / 12) ** 0.5, abs=0.01)
    neighbours = torch.stack([images[..., 1:].flatten(), images[..., :-1].flatten()])
    assert torch.corrcoef(neighbours)[0, 1].abs() < 0.01


def test_unknown_names_are_refused_with_a_suggestion():
    with pytest.raises(InputError, match="unknown generator.type 'dcgann'. Did you mean 'dcgan'"):
        build("dcgann")
    with pytest.raises(InputError, match="generator.latent_dims: .*Did you mean 'latent_dim'"):
        build("dcgan", latent_dims=8)
    with pytest.raises(InputError, match="no such option"):
        build("noise", latent_dim=8)


@pytest.mark.parametrize("kind", ["dcgan", "layout"])
def test_checkpointed_activations_change_neither_gradients_nor_statistics(kind):
    torch.manual_seed(0)
    plain = build_generator(kind, num_classes=3, image_size=(16, 32))
    frugal = copy.deepcopy(plain)
    frugal.checkpoint_activations = True
    latents = plain.sample(2, (16, 32), torch.Generator().manual_seed(1))
    weights, kept = torch.rand(2, 3, 16, 32), []
    for generator in (plain, frugal):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):  # noqa: B023
            images = generator(latents)
        kept.append(sum(sizes))
        (images * weights).sum().backward()
    assert kept[1] < kept[0] / 4
    for a, b in zip(plain.parameters(), frugal.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    for a, b in zip(plain.buffers(), frugal.buffers(), strict=True):
        assert torch.equal(a, b)


def test_label_maps_become_layouts_of_every_size():
    # Above 0, below 1, and a void column through both.
    label_map = torch.zeros(12, 20, dtype=torch.uint8)
    label_map[6:] = 1
    label_map[:, 9:11] = 255
    maps = torch.stack([label_map, label_map])
    for size in ((8, 8), (12, 20), (40, 24)):
        under = torch.full((16, *size), 3)
        layouts = crop_label_maps(maps, under, rng())
        assert layouts.shape == under.shape and layouts.dtype == torch.int64
        assert layouts.unique().tolist() == [0, 1, 3]
        above_below = torch.where(layouts == 3, -1, layouts)
        assert (above_below.amax(dim=2).diff(dim=1) >= 0).all()  # never a 0 below a 1
        assert len(layouts.flatten(1).unique(dim=0)) > 3
    # At the map's own size and scale it is the map, or its mirror image (the same here).
    whole = crop_label_maps(maps, torch.full((4, 12, 20), 3), rng(), zoom=(1.0, 1.0))
    assert (whole == torch.where(label_map == 255, 3, label_map)).all()


def test_layout_generator_takes_label_maps():
    maps = torch.full((3, 32, 32), 4, dtype=torch.uint8)
    generator = build("layout", width=4, boxes=0, label_maps=maps)
    assert (generator.sample(2, (16, 24), rng()).layout == 4).all()
    assert "label_maps" not in generator.state_dict()
    with pytest.raises(InputError, match=r"uint8 tensor \(K, H, W\)"):
        build("layout", label_maps="folder")


def test_painters_share_a_batch():
    generator = build("layout", width=4, painters=3)
    first, second, third = generator.painters
    assert not torch.equal(first.to_image.weight, second.to_image.weight)
    latents = generator.sample(7, (24, 32), rng())
    images = generator(latents)
    for place, painter in enumerate((first, second, third)):
        alone = build("layout", width=4)
        alone.painters[0].load_state_dict(painter.state_dict())
        mine = latents._make(tensor[place::3] for tensor in latents)
        assert torch.allclose(alone(mine), images[place::3], atol=1e-6)
    images[1].sum().backward()  # the second painter's, and no one else's
    assert all(p.grad.any() for p in second.parameters())
    assert not any(p.grad.any() for painter in (first, third) for p in painter.parameters())
    few = latents._make(t[:2] for t in latents)  # fewer images than painters
    assert torch.allclose(generator(few), images[:2], atol=1e-6)
