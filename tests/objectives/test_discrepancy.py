"""Discrepancies against hand-worked numbers and numpy, and the properties that the game relies on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_seg.objectives import DISCREPANCIES, weighted_discrepancy
from dfad_seg.objectives.discrepancy import TEMPERED

SHAPES = [(2, 3), (1, 2, 4, 5), (2, 11, 3, 3)]


def logits(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_against_numpy(shape):
    student, teacher = logits(shape, 0), logits(shape, 1)
    s, t = student.numpy(), teacher.numpy()
    p, q = softmax(t), softmax(s)
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
    expected = temperature**2 * (softmax(t) * np.log(softmax(t) / softmax(s))).sum(1).mean()
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
