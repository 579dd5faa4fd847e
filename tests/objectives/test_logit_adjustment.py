"""Logit adjustment against a calculation by hand, and what it is for: doubt is resolved for the rarer class."""

import numpy as np
import pytest
import torch

from dfad_seg.objectives import GeneratorObjective, LogitAdjustment
from dfad_seg.objectives.discrepancy import log_mae


def test_by_hand():
    rng = np.random.default_rng(0)
    adjustment = LogitAdjustment(3, strength=0.7)
    batches = [rng.normal(size=(2, 3, 4, 5)).astype("float32") for _ in range(3)]
    for batch in batches:
        adjustment.observe(torch.from_numpy(batch))
    probabilities = [np.exp(b) / np.exp(b).sum(axis=1, keepdims=True) for b in batches]
    shares = np.mean([p.mean(axis=(0, 2, 3)) for p in probabilities], axis=0)  # the first batches count alike
    np.testing.assert_allclose(adjustment.shares.numpy(), shares, rtol=1e-5)
    offsets = 0.7 * np.log(shares)
    expected = batches[0] + (offsets - offsets.mean())[:, None, None]
    np.testing.assert_allclose(adjustment(torch.from_numpy(batches[0])).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_late_batch_moves_the_shares_by_a_hundredth():
    adjustment = LogitAdjustment(2, strength=1.0)
    sure = torch.tensor([100.0, 0.0]).view(1, 2, 1, 1)
    for _ in range(500):
        adjustment.observe(sure)
    before = adjustment.shares.clone()
    adjustment.observe(sure.flip(1))
    torch.testing.assert_close(adjustment.shares - before, torch.tensor([-0.01, 0.01]))


def test_a_class_that_is_never_predicted_is_favoured_by_a_bounded_amount():
    adjustment = LogitAdjustment(4, strength=1.0)
    logits = torch.tensor([50.0, 0.0, 0.0, 0.0]).view(1, 4, 1, 1)
    adjustment.observe(logits)
    added = adjustment(logits) - logits
    assert (added[:, 0] - added[:, 1]).item() == pytest.approx(np.log(40), rel=1e-4)  # a tenth of a quarter


def test_the_generator_looks_for_disagreement_beyond_the_adjustment():
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    adjustment = LogitAdjustment(3, strength=2.0)
    adjustment.observe(teacher * 3)
    common = {"images": torch.rand(2, 3, 4, 4), "latents": None, "teacher_logits": teacher}
    adjusted, _ = GeneratorObjective(log_mae, adjustment=adjustment)(student_logits=student, **common)
    expected, _ = GeneratorObjective(log_mae)(student_logits=adjustment(student), **common)
    plain, _ = GeneratorObjective(log_mae)(student_logits=student, **common)
    torch.testing.assert_close(adjusted, expected)
    assert adjusted != plain
