"""Label losses against torch's cross-entropy and a loop."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dfad_seg.objectives.discrepancy import focal_loss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, 6, generator=generator)
    labels = torch.randint(0, 4, (2, 5, 6), generator=generator)
    labels[0, :2] = 255
    return logits, labels


def test_gamma_zero_is_cross_entropy(batch):
    logits, labels = batch
    expected = F.cross_entropy(logits, labels, ignore_index=255)
    assert focal_loss(logits, labels, gamma=0).item() == pytest.approx(expected.item(), rel=1e-6)


def test_focal_loss_against_a_loop(batch):
    logits, labels = batch
    probabilities = logits.softmax(1).numpy()
    terms = []
    for n, y, x in np.argwhere(labels.numpy() != 255):
        p = probabilities[n, labels[n, y, x], y, x]
        terms.append(-((1 - p) ** 2) * np.log(p))
    assert focal_loss(logits, labels, gamma=2.0).item() == pytest.approx(np.mean(terms), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_a_certain_prediction_has_a_finite_gradient(gamma):
    """At p = 1 a power below 1 has none of its own."""
    logits = torch.tensor([[40.0, 0.0], [0.0, 1.0]]).view(2, 2, 1, 1).requires_grad_()
    focal_loss(logits, torch.zeros(2, 1, 1, dtype=torch.long), gamma=gamma).backward()
    assert torch.isfinite(logits.grad).all() and logits.grad[1].abs().max() > 0.1


def test_nothing_labelled_gives_zero_and_finite_gradients(batch):
    logits = batch[0].requires_grad_()
    loss = focal_loss(logits, torch.full((2, 5, 6), 255))
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros_like(logits))
