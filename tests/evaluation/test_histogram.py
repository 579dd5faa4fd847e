"""The fast counting of 8-bit labels: against numpy, torchmetrics, and the general way of the same matrix."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassConfusionMatrix

from dfad_seg.common.errors import InputError
from dfad_seg.evaluation import ConfusionMatrix, histogram
from dfad_seg.evaluation.histogram import as_bytes, pair_histogram


def by_bincount(first, second):
    codes = first.astype(np.int64) * 256 + second
    return np.bincount(codes, minlength=65536).reshape(256, 256)


@pytest.mark.parametrize("size", [0, 1, 2, 255, 4096, 2**17 + 3, 2**19 + 1])
def test_every_code_is_counted(size):
    rng = np.random.default_rng(size)
    first, second = (rng.integers(0, 256, size, dtype=np.uint8) for _ in range(2))
    counts = pair_histogram(first, second)
    assert counts.dtype == np.int64 and np.array_equal(counts, by_bincount(first, second))


def test_parts_and_threads_add_up(monkeypatch):
    monkeypatch.setattr(histogram, "_EXACT", 1000)
    monkeypatch.setattr(histogram, "_WORTH_A_THREAD", 64)
    monkeypatch.setattr(histogram.torch, "get_num_threads", lambda: 3)
    histogram._pool.cache_clear()
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, 12345, dtype=np.uint8) for _ in range(2))
    assert np.array_equal(pair_histogram(first, second), by_bincount(first, second))
    histogram._pool.cache_clear()


def test_more_pixels_of_one_pair_than_float32_can_count():
    """OpenCV returns float32, where 2**24 + 1 does not exist."""
    labels = np.full(2**24 + 5, 7, dtype=np.uint8)
    assert pair_histogram(labels, labels)[7, 7] == 2**24 + 5


def _in_a_child(result):
    labels = np.zeros(2**20, dtype=np.uint8)
    result.put(int(pair_histogram(labels, labels)[0, 0]))


def test_a_forked_process_makes_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(histogram.torch, "get_num_threads", lambda: 2)
    labels = np.zeros(2**20, dtype=np.uint8)
    pair_histogram(labels, labels)  # the pool exists now
    context = multiprocessing.get_context("fork")
    result = context.Queue()
    child = context.Process(target=_in_a_child, args=(result,), daemon=True)
    child.start()
    assert result.get(timeout=30) == 2**20
    child.join(10)
    assert child.exitcode == 0


def test_labels_become_bytes_only_where_they_fit():
    assert as_bytes(torch.tensor([[0, 255]])).tolist() == [0, 255]
    assert as_bytes(torch.tensor([True, False])).tolist() == [1, 0]
    for outside in (-1, 256, 2**40, -(2**63)):
        assert as_bytes(torch.tensor([3, outside])) is None


CASES = {
    "random": lambda rng: (rng.integers(0, 5, (3, 20, 30)), rng.choice([0, 1, 2, 3, 4, 255], (3, 20, 30))),
    "absent classes": lambda rng: (rng.choice([0, 4], (2, 9, 9)), rng.choice([0, 3], (2, 9, 9))),
    "all ignored": lambda rng: (rng.integers(0, 5, (2, 6, 6)), np.full((2, 6, 6), 255)),
    "one ignored image": lambda rng: (rng.integers(0, 5, (2, 6, 6)), np.stack([np.full((6, 6), 255), np.eye(6)])),
    "one pixel": lambda rng: (np.array([[[4]]]), np.array([[[0]]])),
    "one row": lambda rng: (rng.integers(0, 5, (1, 1, 400)), rng.integers(0, 5, (1, 1, 400))),
    "the last class only": lambda rng: (np.full((1, 7, 7), 4), np.full((1, 7, 7), 4)),
}


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64])
@pytest.mark.parametrize("name", CASES)
def test_parity_with_torchmetrics(name, kind):
    prediction, truth = (torch.from_numpy(np.asarray(a)).to(kind) for a in CASES[name](np.random.default_rng(1)))
    reference = MulticlassConfusionMatrix(5, ignore_index=255)
    ours, pieces = ConfusionMatrix(5), ConfusionMatrix(5)
    ours.update(prediction, truth)
    for p, t in zip(prediction, truth, strict=True):
        pieces.update(p, t)
        reference.update(p.long()[None], t.long()[None])
    assert torch.equal(ours.compute(), reference.compute())
    assert torch.equal(pieces.compute(), ours.compute())


@pytest.mark.parametrize("classes", [254, 255])
def test_border_ids_with_the_largest_number_of_classes(classes):
    truth = torch.tensor([0, classes - 1, 255, classes - 1], dtype=torch.uint8)
    prediction = torch.tensor([classes - 1, classes - 1, 0, 0], dtype=torch.uint8)
    matrix = ConfusionMatrix(classes)
    matrix.update(prediction, truth)
    counts = matrix.compute()
    assert (counts[0, -1], counts[-1, -1], counts[-1, 0], counts.sum()) == (1, 1, 1, 3)
    if classes == 254:
        with pytest.raises(InputError, match="truth label 254"):
            matrix.update(prediction, torch.full((4,), 254, dtype=torch.uint8))
        with pytest.raises(InputError, match="predicted label 254"):
            matrix.update(torch.full((1,), 254, dtype=torch.uint8), torch.full((1,), 255, dtype=torch.uint8))
        assert torch.equal(matrix.compute(), counts)


sizes = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=0, max_size=6)


@settings(max_examples=40, deadline=None)
@given(sizes=sizes, cut=st.integers(0, 6), order=st.randoms(use_true_random=False), seed=st.integers(0, 9))
def test_unequal_sizes_order_and_merging_change_nothing(sizes, cut, order, seed):
    rng = np.random.default_rng(seed)
    images = [(rng.integers(0, 4, s, dtype=np.uint8), rng.choice([0, 1, 2, 3, 255], s).astype(np.uint8)) for s in sizes]
    expected = np.zeros((4, 4), dtype=np.int64)
    for prediction, truth in images:
        for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
            if t != 255:
                expected[t, p] += 1
    order.shuffle(images)
    first, second = ConfusionMatrix(4), ConfusionMatrix(4)
    for matrix, part in ((first, images[:cut]), (second, images[cut:])):
        for prediction, truth in part:
            matrix.update(torch.from_numpy(prediction), torch.from_numpy(truth))
    first.merge(second)
    assert np.array_equal(first.compute().numpy(), expected)
