"""Virtual samples against a loop, and the distribution that they are drawn from."""

import numpy as np
import pytest
import torch
from scipy import stats
from shared import rng

from dfad_seg.objectives import Interpolation
from dfad_seg.objectives.features import symmetric_beta


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


@pytest.mark.parametrize("predict", [dense, classifier])
def test_samples_and_labels_against_a_loop(predict):
    images = torch.rand(5, 3, 6, 8, generator=rng(1))
    logits = predict(images)
    mixed, targets = Interpolation(alpha=0.7, share=0.5)(images, logits, rng(2))
    partner, keep = torch.randperm(5, generator=(same := rng(2))), symmetric_beta(5, 0.7, same)
    for i in range(5):
        j, k = int(partner[i]), float(keep[i]) if i >= 2 else 1.0  # ⌈half of 5⌉ are virtual
        np.testing.assert_allclose(mixed[i], k * images[i] + (1 - k) * images[j], atol=1e-6)
        np.testing.assert_allclose(targets[i], k * logits[i] + (1 - k) * logits[j], atol=1e-6)
    assert torch.equal(mixed[:2], images[:2]) and torch.equal(targets[:2], logits[:2])
