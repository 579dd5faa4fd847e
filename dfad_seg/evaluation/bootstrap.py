"""How sure an mIoU is: bootstrap over images, for one model and for the difference of two."""

import math
from dataclasses import dataclass

import numpy as np

from dfad_seg.common.errors import InputError

RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 0
_AT_ONCE = 256  # resamples per matrix product


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap interval of mIoU over images; the values are fractions."""

    low: float
    high: float
    resamples: int
    confidence: float = CONFIDENCE
    seed: int = SEED


@dataclass(frozen=True)
class Difference:
    """The mIoU of one model minus another's on the same images, with a paired bootstrap over the images.

    Attributes:
        value: the difference on the set itself.
        p_value: two-sided: 2 · min(P(d* ≤ 0), P(d* ≥ 0)) over the resampled differences d*, at most 1; the counts are
            taken + 1 (Davison and Hinkley 1997), so that it is never 0.
    """

    value: float
    interval: Interval
    p_value: float


def mious(counts: np.ndarray) -> np.ndarray:
    """float64 (N,): the mIoU of each of N images, or sets of images, over the classes that occur in it; nan without.

    Args:
        counts: (N, 3, C): per class the pixels of the intersection, the truth and the prediction.
    """
    hits, truth, predicted = (counts[:, place].astype(np.float64) for place in range(3))
    union = truth + predicted - hits
    iou = np.divide(hits, union, out=np.zeros_like(hits), where=union > 0)
    number = (union > 0).sum(axis=1)
    return np.divide(iou.sum(axis=1), number, out=np.full(len(iou), np.nan), where=number > 0)


def resampled_miou(counts: np.ndarray, resamples: int = RESAMPLES) -> np.ndarray:
    """mIoU of sets of images drawn with replacement, as large as the original (Efron 1979).

    Each resampled set has one confusion matrix, as the original has. The same number of images gives the same draws, so
    two models can be compared pair by pair.

    Args:
        counts: int64 (N, 3, C), as for `mious`, by image; N ≥ 1.
        resamples: how many sets, ≥ 1.

    Returns:
        float64 (resamples,); nan for a set in which no class occurs.
    """
    images, _, classes = counts.shape
    rng = np.random.default_rng(SEED)
    # Sums of whole numbers below 2**53: exact in float64, and a product of matrices is fast in it.
    flat = counts.reshape(images, -1).astype(np.float64)
    values = []
    for start in range(0, resamples, _AT_ONCE):
        number = min(_AT_ONCE, resamples - start)
        weights = rng.multinomial(images, np.full(images, 1 / images), size=number).astype(np.float64)
        values.append(mious((weights @ flat).reshape(number, 3, classes)))
    return np.concatenate(values)


def miou_interval(counts: np.ndarray, resamples: int = RESAMPLES) -> Interval:
    """The 95 % interval of mIoU over images; arguments as in `resampled_miou`."""
    return _interval(resampled_miou(counts, resamples), resamples)


def miou_difference(first: np.ndarray, second: np.ndarray, resamples: int = RESAMPLES) -> Difference:
    """The mIoU of `second` minus that of `first`, whose images are the same in the same order."""
    if first.shape != second.shape or not np.array_equal(first[:, 1], second[:, 1]):
        raise InputError("two models can be compared only on the same images, in the same order and size.")
    differences = resampled_miou(second, resamples) - resampled_miou(first, resamples)
    differences = differences[~np.isnan(differences)]
    value = mious(second.sum(axis=0)[None])[0] - mious(first.sum(axis=0)[None])[0]
    below, above = int((differences <= 0).sum()), int((differences >= 0).sum())
    p_value = min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1))
    return Difference(float(value), _interval(differences, resamples), p_value)


def _interval(values: np.ndarray, resamples: int) -> Interval:
    values = values[~np.isnan(values)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail]) if len(values) else (math.nan, math.nan)
    return Interval(float(low), float(high), resamples)
