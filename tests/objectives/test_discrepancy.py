"""Discrepancies and label losses against numbers worked by hand, numpy and torch, and what the game relies on."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from dfad_seg.objectives import DISCREPANCIES, weighted_discrepancy
from dfad_seg.objectives.discrepancy import TEMPERED, focal_loss

SHAPES = [(2, 3), (1, 2, 4, 5), (2, 11, 3, 3)]


def logits(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


@pytest.mark.parametrize("shape", SHAPES)
def test_against_numpy(shape):
    student, teacher = logits(shape, 0), logits(shape, 1)
    s, t = student.numpy(), teacher.numpy()
    p, q = softmax(t, axis=1), softmax(s, axis=1)
    m = (p + q) / 2
    expected = {
        "mae": np.abs(s - t).mean(),
        "log_mae": np.log(1 + np.abs(s - t).mean()),
        "kl": (p * np.log(p / q)).sum(1).mean(),
        "jensen_shannon": (0.5 * (p * np.log(p / m)).sum(1) + 0.5 * (q * np.log(q / m)).sum(1)).mean(),
    }
    assert expected.keys() == DISCREPANCIES.keys()
    for name, value in expected.items():
        assert DISCREPANCIES[name](student, teacher).item() == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("name", sorted(DISCREPANCIES))
@given(seed=st.integers(0, 10_000), shape=st.sampled_from(SHAPES))
@settings(max_examples=20, deadline=None)
def test_never_negative_and_zero_at_equality(name, seed, shape):
    student, teacher = logits(shape, seed), logits(shape, seed + 1)
    value = DISCREPANCIES[name](student, teacher)
    assert value.shape == () and value.item() > 0
    assert DISCREPANCIES[name](student, student.clone()).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", sorted(DISCREPANCIES))
def test_half_precision_logits_are_compared_in_float32(name):
    student, teacher = logits((2, 4, 8, 8), 0).bfloat16(), logits((2, 4, 8, 8), 1).bfloat16()
    value = DISCREPANCIES[name](student, teacher)
    assert value.dtype == torch.float32
    assert torch.equal(value, DISCREPANCIES[name](student.float(), teacher.float()))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_temperature_softens_both_and_is_squared(temperature):
    student, teacher = logits((2, 5, 3, 4), 0), logits((2, 5, 3, 4), 1)
    s, t = student.numpy() / temperature, teacher.numpy() / temperature
    p, q = softmax(t, axis=1), softmax(s, axis=1)
    expected = temperature**2 * (p * np.log(p / q)).sum(1).mean()
    total = weighted_discrepancy({"kl": 0.5, "mae": 1.0}, temperature=temperature)(student, teacher)
    assert total.item() == pytest.approx(0.5 * expected + np.abs((student - teacher).numpy()).mean(), rel=1e-5)
    for name in TEMPERED:
        single = weighted_discrepancy({name: 1.0}, temperature=temperature)(student, teacher)
        assert single.item() == pytest.approx(DISCREPANCIES[name](student, teacher, temperature=temperature).item())
        assert temperature == 1 or single.item() != pytest.approx(DISCREPANCIES[name](student, teacher).item())


@pytest.mark.parametrize("name", sorted(DISCREPANCIES))
def test_gradients_are_finite_even_for_equal_logits(name):
    for student in (torch.zeros(2, 3, 4, 4), torch.full((2, 3), 2.0)):
        student = student.requires_grad_()
        DISCREPANCIES[name](student, torch.randn_like(student)).backward()
        assert torch.isfinite(student.grad).all()
        student.grad = None
        DISCREPANCIES[name](student, student.detach()).backward()
        assert torch.isfinite(student.grad).all()


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
