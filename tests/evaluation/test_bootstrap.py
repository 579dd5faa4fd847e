"""The bootstrap against a plain numpy loop over the same draws."""

import numpy as np
import pytest

from dfad_seg.evaluation import miou_interval, mious
from dfad_seg.evaluation.bootstrap import miou_difference, resampled_miou


def counts_of(seed, images=9, classes=4):
    rng = np.random.default_rng(seed)
    hits = rng.integers(0, 50, (images, classes))
    truth, predicted = hits + rng.integers(0, 40, hits.shape), hits + rng.integers(0, 40, hits.shape)
    counts = np.stack([hits, truth, predicted], axis=1)
    counts[: images // 2, :, -1] = 0  # a class that many resampled sets lack
    return counts


def one_by_one(counts, resamples):
    rng = np.random.default_rng(0)
    values = []
    for _ in range(resamples):
        drawn = rng.multinomial(len(counts), [1 / len(counts)] * len(counts))
        hits, truth, predicted = np.tensordot(drawn, counts, axes=1)
        there = truth + predicted > 0
        values.append(np.mean(hits[there] / (truth + predicted - hits)[there]) if there.any() else np.nan)
    return np.array(values)


def test_equals_a_plain_loop(monkeypatch):
    monkeypatch.setattr("dfad_seg.evaluation.bootstrap._AT_ONCE", 7)
    counts = counts_of(0)
    values = resampled_miou(counts, 40)
    assert np.allclose(values, one_by_one(counts, 40), rtol=1e-14, equal_nan=True)
    interval = miou_interval(counts, 40)
    expected = np.nanquantile(one_by_one(counts, 40), [0.025, 0.975])
    assert (interval.low, interval.high) == pytest.approx(tuple(expected))
    assert (interval.resamples, interval.seed, interval.confidence) == (40, 0, 0.95)


def test_the_paired_difference_uses_the_same_draws():
    first, second = counts_of(0), counts_of(0)
    second[:, 0] = np.minimum(second[:, 0] + 3, np.minimum(second[:, 1], second[:, 2]))
    result = miou_difference(first, second, 99)
    gaps = one_by_one(second, 99) - one_by_one(first, 99)
    assert result.interval.low == pytest.approx(np.quantile(gaps, 0.025))
    assert result.value > 0 and (gaps > 0).all()
    assert result.p_value == pytest.approx(2 / 100)  # 2 (0 + 1) / (99 + 1): never 0
    back = miou_difference(second, first, 99)
    assert back.value == pytest.approx(-result.value) and back.p_value == result.p_value


def test_miou_of_an_image_by_hand():
    hits, truth, predicted = [2, 1, 0, 0], [3, 1, 0, 0], [3, 2, 1, 0]  # class 3 is nowhere
    found = mious(np.array([[hits, truth, predicted], np.zeros((3, 4), dtype=int)]))
    assert found[0] == pytest.approx((2 / 4 + 1 / 2 + 0) / 3) and np.isnan(found[1])
