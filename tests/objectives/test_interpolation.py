"""Virtual samples against loops over pixels, and the distributions that they are drawn from."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dfad_seg.objectives import Interpolation
from dfad_seg.objectives.interpolation import Mixing, draw_mixing, symmetric_beta


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def dense(images):
    """A stand-in for a teacher that works pixel by pixel, but not linearly."""
    return torch.cat([images.square(), images.sin()], dim=1)


def classifier(images):
    return dense(images).mean(dim=(2, 3))


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 4.0, 50.0])
def test_shares_have_the_beta_distribution(alpha):
    drawn = symmetric_beta(20_000, alpha, rng(1)).double().numpy()
    for x in (1e-6, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        # Five standard deviations of a share among 20,000.
        assert (drawn <= x).mean() == pytest.approx(stats.beta(alpha, alpha).cdf(x), abs=0.018)
    assert drawn.min() >= 0 and drawn.max() <= 1


def test_mixup_by_hand():
    images = torch.tensor([0.0, 1.0, 10.0]).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    mixing = Mixing(torch.tensor([2, 0, 1]), torch.tensor([0.25, 0.5, 1.0]).view(3, 1, 1, 1))
    assert mixing.blend(images)[:, 0, 0, 0].tolist() == [0.25 * 0 + 0.75 * 10, 0.5, 10.0]
    assert mixing.blend(images[:, :, 0, 0])[:, 0].tolist() == [7.5, 0.5, 10.0]


def test_a_cut_in_pooled_logits_is_that_of_the_pixels_on_average():
    mixing = draw_mixing("cutmix", torch.Size((4, 3, 12, 8)), alpha=1.0, rng=rng(5))
    flat = torch.randn(4, 2, 3, 2, generator=rng(1))  # logits that do not differ within squares of 4 pixels
    whole = flat.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(mixing.blend(flat), torch.nn.functional.avg_pool2d(mixing.blend(whole), 4))


@pytest.mark.parametrize("predict", [dense, classifier])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_interpolated_labels_against_a_loop(kind, predict):
    images = torch.rand(5, 3, 6, 8, generator=rng(1))
    result = Interpolation(type=kind, alpha=0.7, share=0.5)(images, predict, rng(2))
    mixing = draw_mixing(kind, images.shape, alpha=0.7, rng=rng(2))
    keep = mixing.keep.expand(5, 1, 6, 8).numpy()
    own, logits = images.numpy(), predict(images).numpy()
    assert result.matching == 2  # ⌈half of 5⌉ are virtual
    for i in range(5):
        j = int(mixing.partner[i])
        k = keep[i] if i >= 2 else np.ones_like(keep[i])
        np.testing.assert_allclose(result.images[i].numpy(), k * own[i] + (1 - k) * own[j], atol=1e-6)
        share = k if predict is dense else k.mean()
        np.testing.assert_allclose(result.targets[i].numpy(), share * logits[i] + (1 - share) * logits[j], atol=1e-6)
    assert torch.equal(result.teacher_logits, predict(images)) and result.teacher_images is images


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_the_teacher_may_be_shown_the_virtual_images(kind):
    images, calls = torch.rand(4, 3, 6, 6), []
    result = Interpolation(type=kind, share=1.0, labels="teacher")(images, lambda x: calls.append(x) or dense(x), rng())
    assert len(calls) == 1 and torch.equal(calls[0], result.images)
    assert torch.equal(result.targets, dense(result.images)) and result.targets is result.teacher_logits
    assert result.matching == 4


@given(seed=st.integers(0, 5000), alpha=st.sampled_from([0.2, 1.0, 3.0]), count=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_cutmix_boxes(seed, alpha, count):
    height, width = 20, 31
    mixing = draw_mixing("cutmix", (count, 3, height, width), alpha=alpha, rng=rng(seed))
    assert sorted(mixing.partner.tolist()) == list(range(count))
    torch.manual_seed(seed)
    # The same numbers once more: the box of share λ is a rectangle of at most (1 − λ) of the image, up to rounding.
    again = draw_mixing("mixup", (count, 3, height, width), alpha=alpha, rng=rng(seed))
    for keep, share in zip(mixing.keep[:, 0], again.keep.flatten().tolist(), strict=True):
        rows, columns = np.nonzero(keep.numpy() == 0)
        if len(rows) == 0:
            continue
        box = (np.ptp(rows) + 1, np.ptp(columns) + 1)
        assert len(rows) == box[0] * box[1], "not a rectangle"
        side = (1 - share) ** 0.5
        assert box[0] <= side * height + 1 and box[1] <= side * width + 1


def test_cutmix_takes_the_area_that_it_should():
    # Away from borders the box has the whole area 1 − λ: count boxes that do not touch one.
    mixing = draw_mixing("cutmix", (400, 3, 64, 64), alpha=2.0, rng=rng(3))
    shares = draw_mixing("mixup", (400, 3, 64, 64), alpha=2.0, rng=rng(3)).keep.flatten()
    keep = mixing.keep[:, 0]
    inside = (keep[:, 0] == 1).all(1) & (keep[:, -1] == 1).all(1)
    inside &= (keep[:, :, 0] == 1).all(1) & (keep[:, :, -1] == 1).all(1)
    assert inside.sum() > 20
    torch.testing.assert_close(keep[inside].mean(dim=(1, 2)), shares[inside], atol=0.04, rtol=0)


def test_random_from_rng_alone():
    images = torch.rand(4, 3, 8, 8)
    first = Interpolation(type="cutmix")(images, dense, rng(5))
    torch.manual_seed(99)
    again, other = (
        Interpolation(type="cutmix")(images, dense, rng(5)),
        Interpolation(type="cutmix")(images, dense, rng(6)),
    )
    assert torch.equal(first.images, again.images) and torch.equal(first.targets, again.targets)
    assert not torch.equal(first.images, other.images)
