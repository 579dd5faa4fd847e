"""Discrepancies against hand-worked numbers and numpy, and the properties that the game relies on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dfad_seg.common.errors import InputError
from dfad_seg.objectives import DISCREPANCIES, weighted_discrepancy
from dfad_seg.objectives.discrepancy import TEMPERED, jensen_shannon, kl, log_mae, mae, mse

SHAPES = [(2, 3), (1, 2, 4, 5), (2, 11, 3, 3)]


def logits(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def log_softmax(x):
    return np.log(softmax(x))


def boundary_reference(s, t, radius=2, factor=5.0):
    """Pixel by pixel: a pixel counts `factor` times if any pixel within `radius` of it has another label."""
    gaps, labels = np.abs(s - t).mean(1), t.argmax(1)
    weights = np.ones_like(gaps)
    if gaps.ndim == 3:
        for n, y, x in np.ndindex(gaps.shape):
            window = labels[n, max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
            weights[n, y, x] = factor if (window != labels[n, y, x]).any() else 1.0
    return (weights * gaps).sum() / weights.sum()


def blocks(seed, shape=(2, 3, 12, 16)):
    """Logits whose labels come in blocks, so that some pixels are far from every boundary."""
    coarse = logits((shape[0], shape[1], 2, 2), seed)
    return torch.nn.functional.interpolate(coarse, shape[2:], mode="nearest") + 0.01 * logits(shape, seed + 1)


def test_mae_and_its_log_by_hand():
    student = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    teacher = torch.tensor([[0.0, 4.0], [0.0, 2.0]])
    # |1| + |-2| + |0| + |-3| = 6, over 4 entries.
    assert mae(student, teacher).item() == 1.5
    assert log_mae(student, teacher).item() == pytest.approx(np.log(2.5))
    assert mse(student, teacher).item() == (1 + 4 + 0 + 9) / 4


def test_kl_by_hand():
    # Teacher p = (1/4, 3/4), student q = (1/2, 1/2): KL(p‖q) = 1/4 ln(1/2) + 3/4 ln(3/2).
    teacher = torch.log(torch.tensor([[1.0, 3.0]]))
    student = torch.zeros(1, 2)
    assert kl(student, teacher).item() == pytest.approx(0.25 * np.log(0.5) + 0.75 * np.log(1.5))


@pytest.mark.parametrize("shape", SHAPES)
def test_against_numpy(shape):
    student, teacher = logits(shape, 0), logits(shape, 1)
    s, t = student.numpy(), teacher.numpy()
    p, q = softmax(t), softmax(s)
    m = (p + q) / 2
    zs = stats.zscore(s, axis=1)
    expected = {
        "mae": np.abs(s - t).mean(),
        "log_mae": np.log(1 + np.abs(s - t).mean()),
        "mse": ((s - t) ** 2).mean(),
        "kl": (p * np.log(p / q)).sum(1).mean(),
        "jensen_shannon": (0.5 * (p * np.log(p / m)).sum(1) + 0.5 * (q * np.log(q / m)).sum(1)).mean(),
        "cosine": (1 - (s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1)).mean(),
        "balanced_mae": np.mean([np.abs(s - t).mean(1)[t.argmax(1) == c].mean() for c in np.unique(t.argmax(1))]),
        "normalised_mae": np.abs(stats.zscore(s, axis=1) - stats.zscore(t, axis=1)).mean(),
        "normalised_kl": (softmax(zt := stats.zscore(t, axis=1)) * (log_softmax(zt) - log_softmax(zs))).sum(1).mean(),
        "boundary_mae": boundary_reference(s, t),
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


def test_jensen_shannon_is_symmetric_and_bounded():
    student, teacher = logits((2, 5, 4, 4), 0) * 50, logits((2, 5, 4, 4), 1) * 50
    value = jensen_shannon(student, teacher).item()
    assert value == pytest.approx(jensen_shannon(teacher, student).item())
    assert value <= np.log(2) + 1e-6


def test_weighted_sum():
    student, teacher = logits((2, 3, 4, 4), 0), logits((2, 3, 4, 4), 1)
    total = weighted_discrepancy({"mae": 0.5, "kl": 2.0})(student, teacher)
    assert total.item() == pytest.approx(0.5 * mae(student, teacher).item() + 2 * kl(student, teacher).item())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_temperature_softens_both_and_is_squared(temperature):
    student, teacher = logits((2, 5, 3, 4), 0), logits((2, 5, 3, 4), 1)
    s, t = student.numpy() / temperature, teacher.numpy() / temperature
    expected = temperature**2 * (softmax(t) * (log_softmax(t) - log_softmax(s))).sum(1).mean()
    total = weighted_discrepancy({"kl": 0.5, "mae": 1.0}, temperature=temperature)(student, teacher)
    assert total.item() == pytest.approx(0.5 * expected + np.abs((student - teacher).numpy()).mean(), rel=1e-5)
    for name in TEMPERED:
        single = weighted_discrepancy({name: 1.0}, temperature=temperature)(student, teacher)
        assert single.item() == pytest.approx(DISCREPANCIES[name](student, teacher, temperature=temperature).item())
        assert temperature == 1 or single.item() != pytest.approx(DISCREPANCIES[name](student, teacher).item())


def test_balanced_mae_lets_a_rare_class_count_as_much():
    teacher = torch.tensor([[9.0, 0.0]] * 9 + [[0.0, 9.0]])
    student = teacher.clone()
    student[9] += 2.0  # wrong on the one position of class 1
    assert mae(student, teacher).item() == pytest.approx(0.2)
    assert DISCREPANCIES["balanced_mae"](student, teacher).item() == pytest.approx((0 + 2.0) / 2)


def test_boundary_mae_away_from_and_near_boundaries():
    teacher = torch.zeros(1, 2, 1, 20)
    teacher[:, 0, :, :10] = teacher[:, 1, :, 10:] = 8.0  # near: pixels 8 to 11
    far, near = teacher.clone(), teacher.clone()
    far[..., 2] += 1.0
    near[..., 9] += 1.0
    total = 16 * 1 + 4 * 5
    assert DISCREPANCIES["boundary_mae"](far, teacher).item() == pytest.approx(1 / total)
    assert DISCREPANCIES["boundary_mae"](near, teacher).item() == pytest.approx(5 / total)
    student, answer = blocks(0), blocks(5)
    value = DISCREPANCIES["boundary_mae"](student, answer).item()
    assert value == pytest.approx(boundary_reference(student.numpy(), answer.numpy()), rel=1e-5)


@pytest.mark.parametrize(
    "name, change", [("normalised_mae", "affine"), ("normalised_kl", "affine"), ("cosine", "scale")]
)
def test_what_the_normalised_ones_do_not_see(name, change):
    teacher = logits((2, 6, 3, 3), 0)
    student = 3.0 * teacher + (5.0 if change == "affine" else 0.0)
    assert DISCREPANCIES[name](student, teacher).item() == pytest.approx(0, abs=1e-5)
    assert mae(student, teacher).item() > 1


@pytest.mark.parametrize("name", sorted(DISCREPANCIES))
def test_gradients_are_finite_even_for_equal_logits(name):
    for student in (torch.zeros(2, 3, 4, 4), torch.full((2, 3), 2.0)):
        student = student.requires_grad_()
        DISCREPANCIES[name](student, torch.randn_like(student)).backward()
        assert torch.isfinite(student.grad).all()
        student.grad = None
        DISCREPANCIES[name](student, student.detach()).backward()
        assert torch.isfinite(student.grad).all()


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(InputError, match="unknown discrepancy 'log_maee'. Did you mean 'log_mae'"):
        weighted_discrepancy({"log_maee": 1.0})
