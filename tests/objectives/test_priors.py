"""The generator's priors against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from dfad_seg.errors import InputError
from dfad_seg.objectives import BatchNormPrior, GeneratorObjective
from dfad_seg.objectives.discrepancy import log_mae
from dfad_seg.objectives.priors import class_balance, layout_consistency, total_variation


def teacher_with(mean, var):
    norm = nn.BatchNorm2d(len(mean), eps=0.0)
    norm.running_mean = torch.tensor(mean)
    norm.running_var = torch.tensor(var)
    return nn.Sequential(norm).eval()


def watched(teacher, x):
    prior = BatchNormPrior(teacher)
    with prior.watch():
        teacher(x)
    return prior.value()


def test_batch_norm_prior_by_hand():
    # One channel: batch mean 3, population sd 1; the layer remembers mean 1, sd 2.
    x = torch.tensor([2.0, 4.0]).view(2, 1, 1, 1).expand(2, 1, 1, 2).contiguous()
    teacher = teacher_with([1.0], [4.0])
    assert watched(teacher, x).item() == pytest.approx(abs(3 - 1) / 2 + abs(1 - 2) / 2, rel=1e-4)


def test_batch_norm_prior_is_small_for_matching_statistics():
    x = torch.randn(16, 3, 8, 8)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    matched = watched(teacher_with(mean.tolist(), var.tolist()), x)
    shifted = watched(teacher_with((mean + 1).tolist(), var.tolist()), x)
    assert matched.item() < 1e-3 < shifted.item()


def test_dead_channels_and_pooled_layers_are_left_out():
    x = torch.randn(8, 4, 4, 4)
    var = x.var((0, 2, 3), correction=0).tolist()
    with_dead = teacher_with(x.mean((0, 2, 3)).tolist(), [*var[:3], 1e-10])
    assert watched(with_dead, x).item() < 1e-2  # the dead channel alone would give ~1e5
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Upsample(4), nn.BatchNorm2d(4)).eval()
    pooled[1].running_mean += 1000.0
    alone = nn.Sequential(nn.AdaptiveAvgPool2d(1), pooled[1], nn.Upsample(4)).eval()
    only_last = watched(nn.Sequential(pooled[3]).eval(), alone(x))
    assert watched(pooled, x).item() == pytest.approx(only_last.item())


def test_batch_norm_prior_reaches_the_image_and_leaves_no_hooks():
    teacher = teacher_with([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    watched(teacher, images).backward()
    assert images.grad.abs().sum() > 0
    assert not teacher[0]._forward_pre_hooks


def test_teacher_without_statistics_is_refused():
    with pytest.raises(InputError, match="needs a teacher with BatchNorm"):
        BatchNormPrior(nn.Conv2d(3, 3, 1))
    with pytest.raises(InputError, match="needs a teacher with BatchNorm"):
        BatchNormPrior(nn.BatchNorm2d(3, track_running_stats=False))


def test_layout_consistency_is_the_cross_entropy():
    logits = torch.log(torch.tensor([0.2, 0.8])).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    layout = torch.tensor([[[1, 1], [1, 0]]])
    assert layout_consistency(logits, layout).item() == pytest.approx(-(3 * np.log(0.8) + np.log(0.2)) / 4)


def test_class_balance_is_a_hinge():
    one_class = torch.full((1, 4, 2, 2), -50.0)
    one_class[:, 0] = 50.0
    assert class_balance(one_class, floor=0.8).item() == pytest.approx(0.8, abs=1e-5)
    assert class_balance(torch.zeros(1, 4, 2, 2), floor=0.8).item() == 0


def test_total_variation_by_hand():
    image = torch.tensor([[0.0, 1.0], [0.5, 0.5]]).view(1, 1, 2, 2)
    # Vertical gaps .5, .5; horizontal gaps 1, 0.
    assert total_variation(image).item() == pytest.approx(0.5 + 0.5)


def test_objective_is_the_weighted_sum_and_weight_zero_is_not_computed():
    student, teacher_logits = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    images = torch.rand(2, 3, 4, 4)
    paper = GeneratorObjective(log_mae)(
        images=images, latents=None, student_logits=student, teacher_logits=teacher_logits
    )
    assert paper.keys() == {"discrepancy", "loss"}
    assert paper["loss"].item() == -np.log1p((student - teacher_logits).abs().mean().item()).astype("float32")

    prior = BatchNormPrior(teacher := teacher_with([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]))
    objective = GeneratorObjective(
        log_mae, adversarial_weight=0.5, batch_norm_prior=prior, batch_norm_weight=2.0, variation_weight=3.0
    )
    with objective.watch_teacher():
        teacher(images)
    terms = objective(images=images, latents=None, student_logits=student, teacher_logits=teacher_logits)
    expected = -0.5 * terms["discrepancy"] + 2 * terms["batch_norm_prior"] + 3 * terms["total_variation"]
    assert terms["loss"].item() == pytest.approx(expected.item())
