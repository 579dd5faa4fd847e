import math

import pytest

from dfad_seg.common.errors import InputError
from dfad_seg.distill import build_schedule
from dfad_seg.distill.seeds import derived_seed


def test_values_by_hand():
    paper = build_schedule("step", iterations=15_000, every=5_000)
    assert [paper(i) for i in (0, 4_999, 5_000, 14_999)] == pytest.approx([1, 1, 0.1, 0.01])
    poly = build_schedule("poly", iterations=100, power=0.9)
    assert poly(0) == 1 and poly(50) == pytest.approx(0.5**0.9) and poly(100) == 0
    cosine = build_schedule("cosine", iterations=100, end=0.1)
    assert cosine(0) == 1 and cosine(25) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi / 4)))
    assert cosine(100) == pytest.approx(0.1)
    assert build_schedule("constant", iterations=10)(7) == 1


def test_warmup_is_linear_and_then_over():
    warm = build_schedule("constant", iterations=100, warmup=4)
    assert [warm(i) for i in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_unknown_schedule():
    with pytest.raises(InputError, match="Did you mean 'cosine'"):
        build_schedule("cosin", iterations=10)


def test_seeds_differ_by_every_part_and_are_stable():
    base = derived_seed(0, 0, 0)
    others = [derived_seed(1, 0, 0), derived_seed(0, 1, 0), derived_seed(0, 0, 1), derived_seed(0, 0, 0, "preview")]
    assert len({base, *others}) == 5
    assert derived_seed(3, 2, 1) == derived_seed(3, 2, 1)
    assert all(0 <= s < 2**63 for s in others)
