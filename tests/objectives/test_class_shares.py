"""Class shares by moment matching, on features whose mixture is known."""

import pytest
import torch
from shared import rng
from torch import nn

from dfad_seg.common.errors import InputError
from dfad_seg.objectives import ClassShares
from dfad_seg.segmentors import Segmentor

TRUE = torch.tensor([0.55, 0.25, 0.15, 0.05])
CHANNELS = 48


def features(labels, seed=0):
    """(N, F, H, W): normal around a mean of its own for each class, with a spread of its own."""
    means = 2 * torch.randn(len(TRUE), CHANNELS, generator=rng(77))
    spreads = torch.rand(len(TRUE), CHANNELS, generator=rng(78)) + 0.5
    noise = torch.randn(*labels.shape, CHANNELS, generator=rng(seed))
    return (means[labels] + spreads[labels] * noise).permute(0, 3, 1, 2)


def drawn(shares, size=(8, 16, 16), seed=0):
    return torch.multinomial(shares, size[0] * size[1] * size[2], True, generator=rng(seed)).view(size)


@pytest.fixture
def norm():
    """A BatchNorm with the running statistics of a training set in which the classes have the shares TRUE."""
    seen = features(drawn(TRUE, (64, 16, 16), seed=5), seed=6)
    layer = nn.BatchNorm2d(CHANNELS).eval()
    layer.running_mean.copy_(seen.mean(dim=(0, 2, 3)))
    layer.running_var.copy_(seen.var(dim=(0, 2, 3)))
    return layer


def watched(estimator, norm, labels, seed):
    with estimator.watch():
        norm(features(labels, seed))
    return estimator.update(labels)


@pytest.mark.parametrize("generated", [torch.ones(4) / 4, torch.tensor([0.05, 0.15, 0.2, 0.6])])
def test_finds_the_training_shares_in_images_of_other_shares(norm, generated):
    estimator = ClassShares(norm, torch.ones(4) / 4)
    for i in range(30):
        shares = watched(estimator, norm, drawn(generated, seed=i), seed=100 + i)
    torch.testing.assert_close(shares, TRUE, atol=0.03, rtol=0)
    assert shares.sum().item() == pytest.approx(1, abs=1e-5)


def test_a_class_that_is_never_predicted_stays_near_the_prior(norm):
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1])
    estimator = ClassShares(norm, prior)
    three = torch.tensor([0.4, 0.3, 0.3, 0.0])
    for i in range(20):
        shares = watched(estimator, norm, drawn(three, seed=i), seed=i)
    assert torch.isfinite(shares).all() and 0.02 < shares[3] < 0.3
    assert shares[0] > 0.45


def test_labels_may_be_finer_than_features_and_come_in_parts(norm):
    """Predictions have the images' resolution; a step may ask the teacher part by part."""
    labels = drawn(TRUE)
    fine = labels.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    inputs = features(labels)
    estimates = []
    for parts in (1, 4):
        estimator = ClassShares(norm, torch.ones(4) / 4)
        for part in inputs.chunk(parts):
            with estimator.watch():
                norm(part)
        estimates.append(estimator.update(fine).clone())
    torch.testing.assert_close(*estimates)
    exact = ClassShares(norm, torch.ones(4) / 4)
    with exact.watch():
        norm(inputs)
    torch.testing.assert_close(exact.update(labels), estimates[0])
    norm(inputs)  # outside of watch() nothing is recorded
    assert not exact._inputs


def network(seed=0, channels=24, classes=5, kernel=1):
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, classes, kernel, padding=kernel // 2),
    )
    nn.init.normal_(body[1].weight, 1.0, 0.3)
    nn.init.normal_(body[1].bias, 0.0, 0.5)
    nn.init.normal_(body[3].weight, 0.0, 0.4)
    return Segmentor(body, num_classes=classes, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_the_prior_is_the_mean_prediction_where_its_assumptions_hold():
    """Features that are normal and independent by construction: the estimate is the mean softmax of real logits."""
    segmentor = network()
    body = segmentor.network
    z = torch.randn(50_000, 24, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        features = (body[1].bias + body[1].weight * z).relu()
        expected = body[3](features[:, :, None, None]).softmax(dim=1).mean(dim=(0, 2, 3))
    torch.testing.assert_close(ClassShares.of(segmentor).shares, expected, atol=0.01, rtol=0.05)


def test_a_bias_makes_a_class_frequent_and_a_network_without_such_an_end_is_refused():
    segmentor = network(kernel=3).train()
    with torch.no_grad():
        segmentor.network[3].bias[2] += 20
    assert ClassShares.of(segmentor).prior[2] > 0.9 and segmentor.network[1].training
    plain = Segmentor(nn.Conv2d(3, 5, 1), num_classes=5, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(InputError, match="Set generator.class_frequencies: uniform"):
        ClassShares.of(plain)
