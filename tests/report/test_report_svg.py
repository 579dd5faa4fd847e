"""Charts: where a value lies can be read off the axes, whatever the values are."""

import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_seg.report.parts import Chart, Series
from dfad_seg.report.svg import chart_svg, nice_ticks, running_mean


def parsed(chart):
    return ElementTree.fromstring(chart_svg(chart))


def scale(root):
    """Value → y, from the labels of the y axis and where they stand."""
    labels = [(float(t.text.replace(",", "")), float(t.get("y"))) for t in root.iter("text") if t.get("dy")]
    (v0, y0), (v1, y1) = labels[0], labels[-1]
    return lambda value: y0 + (value - v0) / (v1 - v0) * (y1 - y0)


def test_points_lie_where_the_axis_says():
    root = parsed(Chart("c", [Series("<a>", [0, 5, 10], [1.0, 4.0, 2.5])]))
    at = scale(root)
    circles = [float(circle.get("cy")) for circle in root.iter("circle")]
    assert circles == pytest.approx([at(1.0), at(4.0), at(2.5)], abs=0.2)
    assert [title.text for title in root.iter("title")][1] == "<a>, iteration 5: 4"


def test_logarithmic_axis_has_decades():
    root = parsed(Chart("c", [Series("a", [1, 2, 3], [1e-4, 1e-2, 1e-1])], log=True))
    labels = {float(t.text): float(t.get("y")) for t in root.iter("text") if t.get("dy")}
    assert set(labels) == {1e-4, 1e-3, 1e-2, 1e-1}
    assert labels[1e-4] - labels[1e-3] == pytest.approx(labels[1e-2] - labels[1e-1], abs=0.2)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.3, 0.31), (-5, 120_000), (1e-7, 9e-7)])
def test_ticks_are_round_and_inside(low, high):
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert all(low - 1e-12 <= tick <= high + 1e-9 * abs(high) for tick in ticks)
    step = ticks[1] - ticks[0]
    assert step / 10 ** math.floor(math.log10(step) + 1e-9) == pytest.approx(min((1, 2, 5), key=lambda n: abs(
        step / 10 ** math.floor(math.log10(step) + 1e-9) - n)))  # fmt: skip


def test_smoothing_is_a_centred_mean():
    values = np.sin(np.arange(200)).tolist()
    start, means = running_mean(values)
    assert (start, len(means)) == (2, 196)
    assert means[10] == pytest.approx(np.mean(values[10:15]))
    assert len(list(parsed(Chart("c", [Series("a", list(range(200)), values)], smooth=True)).iter())) > 5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e12, 1e12, allow_subnormal=False), min_size=1, max_size=900),
    st.booleans(),
    st.sampled_from([None, 0.0]),
)
def test_any_finite_values_give_a_drawing_inside_its_frame(values, smooth, floor):
    root = parsed(Chart("c", [Series("a", list(range(len(values))), values)], smooth=smooth, floor=floor))
    _, _, width, height = map(float, root.get("viewBox").split())
    for line in root.iter("polyline"):
        points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        assert len(points) <= 400
        assert all(-0.1 <= x <= width + 0.1 and -0.1 <= y <= height + 0.1 for x, y in points)
