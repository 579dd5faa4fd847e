"""The loops on real images: resume, and that distillation takes no label."""

import pytest
import torch
import toys
from toys import equal_states, fabric, json_like_copy

from dfad_seg.distill import Hooks, Supervised, WithData, train_with_data


def batches(start):
    for i in range(start, 1000):
        images = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(i))
        yield {"image": images, "mask": (images.mean(1) * 30).long() % 3, "name": ["x"] * 4}


SHARED = {"iterations": 6, "schedule": {"type": "poly"}, "seed": 3, "student_optimizer": {"type": "sgd", "lr": 0.1}}


def with_data(method, *, state=None, hooks=None, images=None, **changes):
    network, loop = toys.segmentor(0, dropout=0.2), {"fabric": fabric(), "state": state, "hooks": hooks}
    if method == "supervised":
        return train_with_data(network, batches, Supervised.of(**SHARED | changes), **loop)
    numbers = WithData.of(**SHARED | {"logit_adjustment": 0.5 if method == "adjusted" else 0} | changes)
    return train_with_data(network, images or batches, numbers, teacher=toys.teacher(), **loop)


@pytest.mark.parametrize("method", ["supervised", "distill_with_data", "adjusted"])
def test_training_with_data_resumes_bit_equal(method):
    saved = {}
    hooks = Hooks(save=lambda step, state: saved.update({step: json_like_copy(state)}), save_every=2)
    whole = with_data(method, hooks=hooks)
    assert equal_states(with_data(method, state=saved[4]), whole)
    assert not whole.training and not any(p.requires_grad for p in whole.parameters())


@pytest.mark.parametrize("changes", [{"logit_adjustment": 0.5}, {"logit_pooling": 4}, {"focal_gamma": 2.0}])
def test_what_changes_the_loss_changes_the_student(changes):
    method = "supervised" if "focal_gamma" in changes else "distill_with_data"
    assert not equal_states(with_data(method, **changes), with_data(method))


def test_distillation_with_data_needs_no_labels():
    first = with_data("distill_with_data")

    def shuffled(start):
        for batch in batches(start):
            yield batch | {"mask": torch.zeros_like(batch["mask"])}

    assert equal_states(first, with_data("distill_with_data", images=shuffled))
