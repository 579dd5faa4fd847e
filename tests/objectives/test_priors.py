"""The generator's priors against numbers worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dfad_seg.common.errors import InputError
from dfad_seg.objectives import BatchNormPrior, GeneratorObjective, build_priors
from dfad_seg.objectives.discrepancy import log_mae
from dfad_seg.objectives.priors import ActivationMagnitude, Scene, class_balance, layout_consistency, one_hot


def teacher_with(mean, var):
    norm = nn.BatchNorm2d(len(mean), eps=1e-12)
    norm.running_mean = torch.tensor(mean)
    norm.running_var = torch.tensor(var)
    return nn.Sequential(norm).eval()


def watched(teacher, x):
    prior = BatchNormPrior(teacher)
    with prior.watch():
        teacher(x)
    return prior(None)


def test_batch_norm_prior_by_hand():
    # One channel: batch mean 3, population sd 1; the layer remembers mean 1, sd 2.
    x = torch.tensor([2.0, 4.0]).view(2, 1, 1, 1).expand(2, 1, 1, 2).contiguous()
    teacher = teacher_with([1.0], [4.0])
    assert watched(teacher, x).item() == pytest.approx(abs(3 - 1) / 2 + abs(1 - 2) / 2, rel=1e-4)


def test_dead_channels_are_left_out():
    x = torch.randn(8, 4, 4, 4)
    var = x.var((0, 2, 3), correction=0).tolist()
    with_dead = teacher_with(x.mean((0, 2, 3)).tolist(), [*var[:3], 1e-10])
    assert watched(with_dead, x).item() < 1e-2  # the dead channel alone would give ~1e5


def test_pooled_layers_are_left_out_and_one_must_be_left():
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Upsample(4), nn.BatchNorm2d(3)).eval()
    prior = BatchNormPrior(pooled)
    for _ in range(2):
        with prior.watch():
            pooled(torch.rand(2, 3, 4, 4))
        assert prior.used == ["3"] and list(prior.layers) == ["1", "3"]
    flat = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.BatchNorm1d(5)).eval()
    with pytest.raises(InputError, match=r"single value per image, and the teacher's \(2\) are all of that kind"):
        watched(flat, torch.rand(2, 3, 4, 4))


def test_teacher_without_statistics_is_refused():
    for teacher in (nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)):
        with pytest.raises(InputError, match="needs a teacher with BatchNorm"):
            BatchNormPrior(teacher)


def test_layout_consistency_is_the_cross_entropy():
    logits = torch.log(torch.tensor([0.2, 0.8])).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    layout = torch.tensor([[[1, 1], [1, 0]]])
    scene = Scene(None, SimpleNamespace(layout=layout), logits)
    assert layout_consistency(scene).item() == pytest.approx(-(3 * np.log(0.8) + np.log(0.2)) / 4)


def test_class_balance_against_the_entropy_by_hand():
    # Two pixels whose distributions average to (1/2, 1/4, 1/4): H = 1.5 bits of log2(3).
    probabilities = torch.tensor([[0.75, 0.125, 0.125], [0.25, 0.375, 0.375]])
    logits = probabilities.log().T.reshape(1, 3, 1, 2)
    assert class_balance(Scene(None, None, logits)).item() == pytest.approx(1 - 1.5 / np.log2(3), rel=1e-5)
    assert class_balance(Scene(None, None, torch.zeros(1, 4, 2, 2))).item() == pytest.approx(0, abs=1e-6)


def test_objective_is_the_weighted_sum_and_weight_zero_is_not_computed():
    student, teacher_logits = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    images = torch.rand(2, 3, 4, 4)
    loss, terms = GeneratorObjective(log_mae)(
        images=images, latents=None, student_logits=student, teacher_logits=teacher_logits
    )
    assert terms.keys() == {"discrepancy"}
    assert loss.item() == -np.log1p((student - teacher_logits).abs().mean().item()).astype("float32")

    prior = BatchNormPrior(teacher := teacher_with([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]))
    objective = GeneratorObjective(
        log_mae,
        adversarial_weight=0.5,
        priors={"batch_norm_prior": (prior, 2.0)} | build_priors({"class_balance": 3.0, "one_hot": 0.0}, teacher),
    )
    with objective.watch_teacher():
        teacher(images)
    assert objective.watching()
    loss, terms = objective(images=images, latents=None, student_logits=student, teacher_logits=teacher_logits)
    assert terms.keys() == {"discrepancy", "batch_norm_prior", "class_balance"}
    expected = -0.5 * terms["discrepancy"] + 2 * terms["batch_norm_prior"] + 3 * terms["class_balance"]
    assert loss.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 3, 5)])
def test_one_hot_is_the_cross_entropy_with_what_is_predicted(shape):
    logits = 3 * torch.randn(shape)
    torch.testing.assert_close(one_hot(Scene(None, None, logits)), F.cross_entropy(logits, logits.argmax(1)))


class Headed(nn.Module):
    """A body, an auxiliary head and a head, whose input is twice the images' first channel."""

    num_classes = 2

    def __init__(self, head):
        super().__init__()
        self.head, self.aux_head = head, nn.Conv2d(3, 2, 1)

    def forward(self, images):
        features = 2 * images[:, :1]
        return self.head(features if isinstance(self.head, nn.Conv2d) else features.mean((2, 3)))


@pytest.mark.parametrize("head", [nn.Conv2d(1, 2, 1), nn.Linear(1, 2)])
def test_activation_magnitude_is_that_of_the_classifiers_input(head):
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    teacher = Headed(head)
    prior = ActivationMagnitude(teacher)
    with prior.watch():
        teacher(images)
    value = prior(None)
    assert value.item() == pytest.approx(-2 * images[:, 0].mean().item())
    value.backward()
    assert images.grad[:, 0].abs().min() > 0 and not head._forward_pre_hooks
