"""Batches for training (seeded, resumable, split over ranks) and for evaluation (in order, once each)."""

import functools
import signal
import sys
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dfad_seg.common.errors import InputError
from dfad_seg.datasets.base import SegmentationDataset


def train_loader(
    dataset: SegmentationDataset,
    *,
    batch_size: int,
    iterations: int,
    seed: int,
    start_iteration: int = 0,
    num_workers: int = 2,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader:
    """`iterations - start_iteration` training batches of `batch_size` samples per rank, to be gone through once.

    The samples follow an endless row of shuffled epochs; epoch `e` is shuffled, and its samples' seeds
    drawn, from `(seed, e)` alone.  Iteration `i` takes the places `i * batch_size * world_size` onwards of
    this row, the ranks in turn.  So a loader that starts at iteration k gives exactly what an uninterrupted
    one gives from there, whatever the number of workers, and within an epoch no two ranks see a sample.

    Each batch: {"image": float32 (N, K, H, W), "mask": int64 (N, H, W)} and lists of N: "name", "index".  The
    transform must give all samples one size (a crop does).
    """
    iterated = range(start_iteration, iterations)
    batches = _train_batches(len(dataset), batch_size, iterated, seed, rank, world_size)
    return _Loader(dataset, batch_sampler=batches, collate_fn=_collate, **_workers(num_workers))


def eval_loader(
    dataset: Dataset, *, batch_size: int, num_workers: int = 2, rank: int = 0, world_size: int = 1
) -> DataLoader:
    """Every sample once, in order; rank `r` takes samples r, r + world_size, ...

    Tensors of the samples are stacked where they have one shape; otherwise they stay a list, as all else.  The last
    batch may be smaller; none is padded.
    """
    mine = list(range(rank, len(dataset), world_size))  # type: ignore[arg-type]
    batches = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    return _Loader(dataset, batch_sampler=batches, collate_fn=_collate, **_workers(num_workers))


def _train_batches(
    samples: int, batch_size: int, iterations: range, seed: int, rank: int, world_size: int
) -> Iterator[list[tuple[int, int]]]:
    """The batches of one rank as lists of `(index, seed)` keys."""
    for iteration in iterations:
        first = iteration * batch_size * world_size + rank
        keys = []
        for place in range(first, first + batch_size * world_size, world_size):
            epoch, offset = divmod(place, samples)
            order, seeds = _epoch(seed, epoch, samples)
            keys.append((int(order[offset]), int(seeds[offset])))
        yield keys


@functools.lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """The order of an epoch's samples, and their seeds."""
    rng = np.random.default_rng([seed, epoch])
    return rng.permutation(samples), rng.integers(2**31, size=samples)


class _Loader(DataLoader):
    """A DataLoader from whose workers an `InputError` arrives as its one line, without their traceback."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            yield from super().__iter__()
            return
        except InputError as error:
            message = str(error).rsplit("InputError: ", 1)[-1].strip()
            # The traceback would keep the iterator, and so its worker processes, until the garbage collector
            # comes by; stopping them from there waits five seconds for each.
            error.__traceback__ = None
        raise InputError(message)


def _collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    batch: dict[str, Any] = {}
    for key, first in samples[0].items():
        values = [sample[key] for sample in samples]
        same = isinstance(first, Tensor) and len({value.shape for value in values}) == 1
        batch[key] = torch.stack(values) if same else values
    return batch


def _workers(num_workers: int) -> dict[str, Any]:
    if num_workers == 0:
        return {"num_workers": 0}
    # Forked workers start in milliseconds and touch neither CUDA nor OpenMP teams (torch gives each one
    # thread, `_start_worker` does so for OpenCV); elsewhere than on Linux the platform's default is safer.
    context = "fork" if sys.platform.startswith("linux") else None
    return {"num_workers": num_workers, "worker_init_fn": _start_worker, "multiprocessing_context": context}


def _start_worker(worker: int) -> None:
    # Ctrl-C and most schedulers signal the whole process group. The main process decides what that means; a worker that
    # died of it would take the run down before it can save. Workers end when they are told to, or orphaned.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)
