"""The loops on real images: resume, and that distillation takes no label."""

import pytest
import torch
import toys
from toys import equal_states, fabric, json_like_copy

from dfad_seg.distill import Hooks, TrainingSettings, build_schedule, distil_with_data, train_supervised
from dfad_seg.objectives import LogitAdjustment, label_loss
from dfad_seg.objectives.discrepancy import mae


def batches(seed=0):
    def from_iteration(start):
        for i in range(start, 1000):
            g = torch.Generator().manual_seed(1000 * seed + i)
            images = torch.rand(4, 3, 12, 12, generator=g)
            yield {"image": images, "mask": (images.mean(1) * 30).long() % 3, "name": ["x"] * 4}

    return from_iteration


def with_data(method, *, iterations=6, state=None, hooks=None, **changes):
    network = toys.segmentor(0, dropout=0.2)
    common = dict(
        fabric=fabric(),
        batches_from=batches(),
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9),
        schedule=build_schedule("poly", iterations=iterations),
        settings=TrainingSettings(iterations=iterations, seed=3, **changes),
        state=state,
        hooks=hooks,
    )
    if method == "adjusted":
        common["adjustment"] = LogitAdjustment(toys.CLASSES, strength=0.5)
    if method == "supervised":
        return train_supervised(network=network, loss_fn=label_loss(), **common)
    return distil_with_data(teacher=toys.teacher(), student=network, student_loss=mae, **common)


@pytest.mark.parametrize("method", ["supervised", "distill_with_data", "adjusted"])
def test_training_with_data_resumes_bit_equal(method):
    saved = {}
    hooks = Hooks(save=lambda step, state: saved.update({step: json_like_copy(state)}), save_every=2)
    whole = with_data(method, hooks=hooks)
    assert equal_states(with_data(method, state=saved[4]), whole)
    assert not whole.training and not any(p.requires_grad for p in whole.parameters())


def test_distillation_with_data_takes_an_adjustment():
    assert not equal_states(with_data("adjusted"), with_data("distill_with_data"))


def test_distillation_with_data_pools_answers():
    plain, pooled = (with_data("distill_with_data", answer_pooling=size) for size in (1, 4))
    assert not equal_states(plain, pooled)


def test_distillation_with_data_needs_no_labels():
    first = with_data("distill_with_data")

    def shuffled(start):
        for batch in batches()(start):
            yield batch | {"mask": torch.zeros_like(batch["mask"])}

    network = toys.segmentor(0, dropout=0.2)
    second = distil_with_data(
        fabric=fabric(),
        teacher=toys.teacher(),
        student=network,
        student_loss=mae,
        batches_from=shuffled,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9),
        schedule=build_schedule("poly", iterations=6),
        settings=TrainingSettings(iterations=6, seed=3),
    )
    assert equal_states(first, second)
