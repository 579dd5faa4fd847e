"""Meters against brute force."""

import math

import numpy as np
import pytest
import torch

from dfad_seg.common.errors import InputError
from dfad_seg.evaluation import Agreement, ImageCounts, Predicted


def predicted(labels, truth, names=None):
    labels, truth = torch.as_tensor(labels), torch.as_tensor(truth)
    return Predicted(names or [str(i) for i in range(len(labels))], labels, truth)


def test_agreement_with_a_teacher():
    meter = Agreement(3, lambda seen: torch.tensor([[[0, 1], [2, 2]]]))
    meter.update(predicted([[[0, 1], [2, 0]]], [[[255, 255], [0, 0]]]))  # the truth does not matter
    overall, classes = meter.compute()
    assert overall == 3 / 4 and classes == [1.0, 1.0, 0.5]
    alone = Agreement(2, lambda seen: torch.zeros(1, 1, 2, dtype=torch.uint8))
    alone.update(predicted([[[0, 1]]], [[[0, 0]]]))
    assert alone.compute()[0] == 0.5 and math.isnan(alone.compute()[1][1])
    with pytest.raises(InputError, match="at least one pixel"):
        Agreement(2, lambda seen: seen.labels).compute()


def test_counts_of_images_are_sorted_by_name_and_sum_to_the_whole():
    rng = np.random.default_rng(0)
    labels, truth = rng.integers(0, 3, (4, 5, 6)), rng.choice([0, 1, 2, 255], (4, 5, 6))
    meter = ImageCounts(3)
    meter.update(predicted(labels[:3], truth[:3], names=["c", "a", "d"]))
    meter.update(predicted(labels[3:], truth[3:], names=["b"]))
    counts = meter.compute()
    assert meter.names == ["a", "b", "c", "d"] and counts.shape == (4, 3, 3)
    for place, image in enumerate((1, 3, 0, 2)):
        kept = truth[image] != 255
        for label in range(3):
            t, p = (truth[image] == label) & kept, (labels[image] == label) & kept
            assert counts[place, :, label].tolist() == [(t & p).sum(), t.sum(), p.sum()]
    with pytest.raises(InputError, match="'a' was evaluated twice"):
        meter.update(predicted(labels[:1], truth[:1], names=["a"]))
    assert ImageCounts(3).compute().shape == (0, 3, 3)
