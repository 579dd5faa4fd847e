"""The evaluator: unequal sizes, native resolution, training modes, and errors."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score
from torch import nn

from dfad_seg.common.errors import InputError
from dfad_seg.evaluation import evaluate_miou


def red_level(num_classes=3, stride=1):
    """Class k where the red channel is nearest to k / (C-1): a segmentor whose answer is plain to see."""
    levels, batch_sizes = torch.linspace(0, 1, num_classes)[None, :, None, None], []

    def network(images):
        batch_sizes.append(len(images))
        return -((images[:, :1, ::stride, ::stride] - levels) ** 2)

    network.batch_sizes = batch_sizes
    return network


def sample(seed, size=(6, 7)):
    rng = torch.Generator().manual_seed(seed)
    answer, truth = torch.randint(0, 3, (2, *size), generator=rng)
    truth[torch.rand(size, generator=rng) < 0.2] = 255
    return answer, truth


def as_batch(samples, of=torch.stack):
    """Images on which `red_level` answers as the samples say, and their truth; lists of them with `of` list."""
    images = [(answer.float() / 2).expand(3, *answer.shape) for answer, _ in samples]
    return {"image": of(images), "mask": of([truth for _, truth in samples])}


def test_unequal_sizes_in_one_batch_and_equal_ones_together():
    samples = [sample(0), sample(1), sample(2, (9, 4)), sample(3, (1, 1)), sample(4)]
    model = red_level()
    metrics = evaluate_miou(model, [as_batch(samples, list)], num_classes=3)
    answers, truths = (torch.cat([pair[side].flatten() for pair in samples]) for side in (0, 1))
    iou = jaccard_score(truths[truths != 255], answers[truths != 255], average=None)
    assert metrics.iou == pytest.approx(iou, abs=1e-12)
    assert model.batch_sizes == [3, 1, 1]


def test_equal_images_with_masks_of_unequal_sizes():
    batch = {"image": torch.rand(2, 3, 8, 8), "mask": [torch.ones(8, 8).long(), torch.ones(5, 4).long()]}
    assert evaluate_miou(red_level(), [batch], num_classes=3).support == (0, 64 + 20, 0)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(6)), cuts=st.sets(st.integers(1, 5)), lists=st.booleans())
def test_order_and_batching_change_nothing(order, cuts, lists):
    samples = [sample(index) for index in order]
    edges = [0, *sorted(cuts), 6]
    of = list if lists else torch.stack
    batches = [as_batch(samples[low:high], of) for low, high in zip(edges, edges[1:], strict=False)]
    expected = evaluate_miou(red_level(), [as_batch([sample(index) for index in range(6)])], num_classes=3)
    assert evaluate_miou(red_level(), batches, num_classes=3) == expected


@pytest.mark.parametrize("size", [(16, 24), (15, 23)])
def test_the_truth_is_evaluated_at_its_own_size(size):
    """Coarse logits are interpolated, bilinearly with half-pixel centres, before the argmax."""
    rng = torch.Generator().manual_seed(3)
    images = torch.rand(2, 3, 16, 24, generator=rng)
    truth = torch.randint(0, 3, (2, *size), generator=rng)
    model, predictions, batch = red_level(stride=4), [], {"image": images, "mask": truth}
    metrics = evaluate_miou(model, [batch], num_classes=3, on_batch=lambda batch, labels: predictions.extend(labels))
    logits = model(images)
    expected = nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(1).numpy()
    answered = torch.stack(predictions).numpy()
    assert (answered == expected).all()
    assert sum(metrics.support) == truth.numel()
    assert metrics.aAcc == pytest.approx((answered == truth.numpy()).mean(), abs=1e-12)


class Mixed(nn.Module):
    """Training modes that no single call of `.train()` could restore, and a BatchNorm that must not move."""

    def __init__(self, fails=False):
        super().__init__()
        self.norm, self.frozen, self.head = nn.BatchNorm2d(3), nn.Dropout(0.9), red_level()
        self.frozen.eval()
        self.fails = fails

    def forward(self, images):
        assert not any(module.training for module in self.modules())
        assert torch.is_inference_mode_enabled()
        if self.fails:
            raise RuntimeError("out of memory")
        self.norm(images)
        return self.head(self.frozen(images))


@pytest.mark.parametrize("fails", [False, True])
def test_every_submodule_gets_its_mode_back(fails):
    model = Mixed(fails)
    before = [module.training for module in model.modules()]
    assert set(before) == {True, False}
    statistics = model.norm.running_mean.clone()
    with pytest.raises(RuntimeError, match="out of memory") if fails else nullcontext():
        evaluate_miou(model, [as_batch([sample(0)])], num_classes=3)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(model.norm.running_mean, statistics)


@pytest.mark.parametrize(
    ("model", "batch", "message"),
    [
        (red_level(4), as_batch([sample(0)]), r"must return logits \(1, 3, H, W\) of .* got \(1, 4, 6, 7"),
        (lambda images: images[:, 0], as_batch([sample(0)]), r"got \(1, 6, 7"),
        (lambda images: {"out": images}, as_batch([sample(0)]), "got dict"),
        (red_level(), {"image": torch.rand(1, 3, 2, 2), "mask": torch.full((1, 2, 2), 11)}, "truth label 11"),
        (red_level(), {"image": torch.rand(1, 3, 2, 2), "mask": torch.full((1, 2, 2), 255)}, "nothing to eval"),
        (red_level(), {"image": torch.rand(0, 3, 2, 2), "mask": torch.zeros(0, 2, 2).long()}, "nothing to eval"),
    ],
)
def test_errors_say_what_is_wrong(model, batch, message):
    with pytest.raises(InputError, match=message):
        evaluate_miou(model, [batch], num_classes=3)
