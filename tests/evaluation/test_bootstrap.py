"""The bootstrap against a plain numpy loop over the same draws."""

import numpy as np
import pytest

from dfad_seg.evaluation import miou_difference, miou_interval
from dfad_seg.evaluation.bootstrap import resampled_miou


def counts_of(seed, images=9, classes=4):
    rng = np.random.default_rng(seed)
    hits = rng.integers(0, 50, (images, classes))
    truth, predicted = hits + rng.integers(0, 40, hits.shape), hits + rng.integers(0, 40, hits.shape)
    counts = np.stack([hits, truth, predicted], axis=1)
    counts[: images // 2, :, -1] = 0  # a class that many resampled sets lack
    return counts


def one_by_one(counts, resamples, seed, subset=None):
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = rng.multinomial(len(counts), [1 / len(counts)] * len(counts))
        chosen = [image for image, times in enumerate(drawn) for _ in range(times)]
        iou = []
        for label in subset if subset is not None else range(counts.shape[2]):
            hit, truth, predicted = (sum(int(counts[i, k, label]) for i in chosen) for k in range(3))
            if truth + predicted - hit:
                iou.append(hit / (truth + predicted - hit))
        values.append(np.mean(iou) if iou else np.nan)
    return np.array(values)


@pytest.mark.parametrize("subset", [None, [1], [3], [0, 3]])
def test_equals_a_plain_loop(subset, monkeypatch):
    monkeypatch.setattr("dfad_seg.evaluation.bootstrap._AT_ONCE", 7)
    counts = counts_of(0)
    values = resampled_miou(counts, resamples=40, seed=5, subset=subset)
    assert np.allclose(values, one_by_one(counts, 40, 5, subset), rtol=1e-14, equal_nan=True)
    interval = miou_interval(counts, resamples=40, seed=5, subset=subset)
    expected = np.nanquantile(one_by_one(counts, 40, 5, subset), [0.025, 0.975])
    assert (interval.low, interval.high) == pytest.approx(tuple(expected))
    assert (interval.resamples, interval.seed, interval.confidence) == (40, 5, 0.95)


def test_the_paired_difference_uses_the_same_draws():
    first, second = counts_of(0), counts_of(0)
    second[:, 0] = np.minimum(second[:, 0] + 3, np.minimum(second[:, 1], second[:, 2]))
    result = miou_difference(first, second, resamples=99, seed=2)
    gaps = one_by_one(second, 99, 2) - one_by_one(first, 99, 2)
    assert result.interval.low == pytest.approx(np.quantile(gaps, 0.025))
    assert result.value > 0 and (gaps > 0).all()
    assert result.p_value == pytest.approx(2 / 100)  # 2 (0 + 1) / (99 + 1): never 0
    back = miou_difference(second, first, resamples=99, seed=2)
    assert back.value == pytest.approx(-result.value) and back.p_value == result.p_value
