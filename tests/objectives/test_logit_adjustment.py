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
    offsets = -0.7 * np.log(shares)
    expected = batches[0] + (offsets - offsets.mean())[:, None, None]
    np.testing.assert_allclose(adjustment(torch.from_numpy(batches[0])).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 6)])
def test_any_trailing_dimensions(shape):
    adjustment, logits = LogitAdjustment(3, strength=0.5), torch.randn(shape)
    assert torch.equal(adjustment(logits), logits)  # nothing was observed
    adjustment.observe(logits)
    adjusted = adjustment(logits)
    assert adjusted.shape == logits.shape and not torch.equal(adjusted, logits)
    torch.testing.assert_close(adjusted.mean(dim=1), logits.mean(dim=1))
    assert adjustment.shares.sum().item() == pytest.approx(1)


def test_a_late_batch_moves_the_shares_by_a_hundredth():
    adjustment = LogitAdjustment(2, strength=1.0)
    sure = torch.tensor([100.0, 0.0]).view(1, 2, 1, 1)
    for _ in range(500):
        adjustment.observe(sure)
    before = adjustment.shares.clone()
    adjustment.observe(sure.flip(1))
    torch.testing.assert_close(adjustment.shares - before, torch.tensor([-0.01, 0.01]))


def test_a_class_that_is_never_answered_is_raised_by_a_bounded_amount():
    adjustment = LogitAdjustment(4, strength=1.0)
    logits = torch.tensor([50.0, 0.0, 0.0, 0.0]).view(1, 4, 1, 1)
    adjustment.observe(logits)
    raised = adjustment(logits) - logits
    assert (raised[:, 1] - raised[:, 0]).item() == pytest.approx(np.log(40), rel=1e-4)  # a tenth of a quarter


def test_an_adjustment_by_the_whole_shares_leaves_no_prior():
    """A teacher that knows nothing but how often classes occur: at τ = 1 its adjusted answer prefers none of them."""
    adjustment = LogitAdjustment(3, strength=1.0)
    logits = torch.tensor([0.5, 0.3, 0.2]).log().view(1, 3, 1, 1).expand(2, 3, 4, 4)
    adjustment.observe(logits)
    adjusted = adjustment(logits)
    torch.testing.assert_close(adjusted, adjusted.mean(dim=1, keepdim=True).expand_as(adjusted))


def test_where_the_teacher_hesitates_the_rarer_class_is_named_and_elsewhere_nothing_changes():
    adjustment = LogitAdjustment(2, strength=0.5)
    adjustment.observe(torch.tensor([0.9, 0.1]).log().view(1, 2, 1, 1))
    sure, hesitant = torch.tensor([4.0, 0.0]).view(1, 2, 1, 1), torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    assert adjustment(sure).argmax().item() == 0
    assert adjustment(hesitant).argmax().item() == 1  # log(0.9 / 0.1) / 2 is 1.1


def test_the_generator_looks_for_disagreement_with_the_adjusted_answers():
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    adjustment = LogitAdjustment(3, strength=2.0)
    adjustment.observe(teacher * 3)
    common = {"images": torch.rand(2, 3, 4, 4), "latents": None, "student_logits": student}
    adjusted = GeneratorObjective(log_mae, adjustment=adjustment)(teacher_logits=teacher, **common)
    expected = GeneratorObjective(log_mae)(teacher_logits=adjustment(teacher), **common)
    plain = GeneratorObjective(log_mae)(teacher_logits=teacher, **common)
    torch.testing.assert_close(adjusted["loss"], expected["loss"])
    assert adjusted["loss"] != plain["loss"]
