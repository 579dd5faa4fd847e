"""Counting pairs of 8-bit labels on a CPU, as fast as plain Python code can ask for."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import cv2
import numpy as np
import torch
from torch import Tensor

# OpenCV counts in integers and returns float32, which is exact up to here.
_EXACT = 2**24
# Below so many pixels a second thread costs more than it saves.
_WORTH_A_THREAD = 2**17


def pair_histogram(first: np.ndarray, second: np.ndarray, bins: int = 256) -> np.ndarray:
    """How often each pair of labels occurs: int64 `(bins, bins)`, rows are `first` and columns `second`.

    Args:
        first, second: uint8 labels of one length, `(n,)`. Large ones are shared out to as many threads as torch has.
        bins: labels from here on are not counted, nor is what stands beside them.
    """
    total = np.zeros((bins, bins), dtype=np.int64)
    size = first.size
    if size == 0:
        return total
    threads = max(1, min(torch.get_num_threads(), size // _WORTH_A_THREAD))
    step = min(-(-size // threads), _EXACT)
    parts = [(first[start : start + step], second[start : start + step]) for start in range(0, size, step)]
    count = partial(_count, bins=bins)
    for counts in map(count, parts) if threads == 1 else _pool().map(count, parts):
        total += counts.astype(np.int64)
    return total


def _count(part: tuple[np.ndarray, np.ndarray], bins: int) -> np.ndarray:
    planes = [labels.reshape(1, -1) for labels in part]
    return cv2.calcHist(planes, [0, 1], None, [bins, bins], [0, bins, 0, bins])


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, torch.get_num_threads()), thread_name_prefix="histogram")


# A forked process inherits the pool but not its threads, and would wait for them for ever.
os.register_at_fork(after_in_child=_pool.cache_clear)


def as_bytes(labels: Tensor) -> np.ndarray | None:
    """The labels of a tensor on the CPU as flat uint8, or None where one lies outside 0 … 255."""
    array = labels.detach().reshape(-1).numpy()
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.view(np.uint8)
    # One pass for both ends of the range: any bit above the lowest eight, the sign's too, survives the OR.
    if int(np.bitwise_or.reduce(array)) & ~0xFF:
        return None
    return array.astype(np.uint8)
