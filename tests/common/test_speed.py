"""The one timer of the project, and denormal numbers."""

import time

import pytest
import torch
from shared import python

from dfad_seg.common.speed import denormals_as_zero, measure_latency
from dfad_seg.evaluation import evaluate_miou


def counts_denormals() -> bool:
    return bool((torch.full((64,), 1e-40) * 1).any())


def passes_of(*milliseconds):
    """A network whose passes, after the two that do not count, take these times in turn."""
    times, seen = iter((0, 0, *milliseconds)), []

    def call(images):
        seen.append((tuple(images.shape), torch.is_grad_enabled(), counts_denormals()))
        time.sleep(next(times) / 1000)

    return call, seen


def test_the_fastest_of_several_passes_counts_and_scatter_is_said():
    call, seen = passes_of(30, 10, 40)
    found = measure_latency(call, (5, 7), passes=3)
    assert seen == [((1, 3, 5, 7), False, False)] * 5
    assert 10 <= found.fastest < 20 and 30 <= found.median < 40 and found.passes == 3
    assert found.scatter > 1 and "passes scatter: median 3" in str(found)


def test_even_passes_do_not_scatter_and_time_is_bounded():
    call, seen = passes_of(*[50] * 20)
    found = measure_latency(call, (1, 1), seconds=0.2)
    assert found.scatter < 0.25 and "scatter" not in str(found)
    assert 3 <= found.passes <= 5 and len(seen) == found.passes + 2
    assert measure_latency(lambda images: None, (1, 1), seconds=0).passes == 3


THREADS = """
import torch
from dfad_seg.common.speed import denormals_as_zero
torch.set_num_threads(2)
x = torch.full((2**20,), 2.0**-130)
zeros = lambda: ((x * 0.5) == 0).float().mean().item()
found = [zeros()]
for _ in range(2):
    with denormals_as_zero():
        found.append(zeros())
        with denormals_as_zero():
            found.append(zeros())
        found.append(zeros())
    found.append(zeros())
try:
    with denormals_as_zero():
        raise ValueError
except ValueError:
    found.append(zeros())
print(found == [0, 1, 1, 1, 0, 1, 1, 1, 0, 0], found)
"""
FLUSHES = pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot flush denormals")


@FLUSHES
@pytest.mark.slow
def test_the_threads_that_torch_began_before_flush_too_and_are_restored():
    printed = python("-c", THREADS)
    assert printed.startswith("True"), printed


@FLUSHES
def test_an_evaluation_takes_denormal_weights_for_zero():
    torch.set_flush_denormal(False)  # whatever ran in this process before
    weight = torch.tensor(2.0**-128)

    def classes(images):
        """1 only where a product of denormal weights is above zero."""
        return torch.cat([torch.zeros_like(images), images * weight * 2.0**120], dim=1)

    batch = {"image": torch.ones(1, 1, 4, 4), "mask": torch.zeros(1, 4, 4, dtype=torch.uint8)}
    assert classes(batch["image"]).argmax(1).sum() == 16
    assert evaluate_miou(classes, [batch], num_classes=2).aAcc == 1
    assert classes(batch["image"]).argmax(1).sum() == 16  # for the caller they are what they were
    with denormals_as_zero():
        assert classes(batch["image"]).argmax(1).sum() == 0
