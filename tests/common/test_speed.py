"""The one timer of the project, and denormal numbers."""

import time

import torch

from dfad_seg.common.modules import measure_latency


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
