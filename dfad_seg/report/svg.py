"""A chart as SVG: no script, no font, no colour of its own, so that the page's style decides on light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from dfad_seg.report.parts import Chart, Series

WIDTH, HEIGHT = 560, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 14, 42
_COLOURS = 6
_MOST_POINTS = 400


def chart_svg(chart: Chart) -> str:
    """An `<svg>` element; its classes are styled by `report.css`.

    Lines of more than 400 points are drawn as means of neighbours. Points are marked, and show their value when
    pointed at, where a line has at most 60.
    """
    steps = [step for line in chart.series for step in line.steps]
    values = [value for line in chart.series for value in line.values]
    x = _Axis(min(steps), max(steps), _LEFT, WIDTH - _RIGHT)
    low = min(values) if chart.floor is None else min(chart.floor, min(values))
    high = max(values) if chart.ceiling is None else max(chart.ceiling, max(values))
    y = _Axis(low, high, HEIGHT - _BOTTOM, _TOP, log=chart.log, pad=chart.floor is None)
    names = ", ".join(line.name for line in chart.series)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{chart.title}: {names}")}">',
        *_grid(x, y),
    ]
    for number, line in enumerate(chart.series):
        parts += _line(line, x, y, colour=number % _COLOURS, smooth=chart.smooth)
    return "\n".join([*parts, "</svg>"])


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within [low, high], `most` at most and two at least."""
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def running_mean(values: Sequence[float]) -> tuple[int, list[float]]:
    """(index of the first mean's middle, means over a fortieth of the values); every mean is over a whole window."""
    window = max(1, len(values) // 40)
    means = np.convolve(values, np.ones(window) / window, mode="valid")
    return (window - 1) // 2, means.tolist()


class _Axis:
    """From values to pixels, `start` at the lowest value and `end` at the highest."""

    def __init__(
        self, low: float, high: float, start: float, end: float, *, log: bool = False, pad: bool = False
    ) -> None:
        self.log, self.start, self.end = log, start, end
        if log:
            low, high = math.log10(low), math.log10(high)
        if high - low <= 1e-9 * max(1e-12, abs(low), abs(high)):
            room = 0.5 if log else abs(high) * 0.1 or 1.0
            low, high = low - room, high + room
        elif pad:
            room = 0.04 * (high - low)
            low, high = low - room, high + room
        self.low, self.high = low, high

    def __call__(self, value: float) -> float:
        value = math.log10(value) if self.log else value
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        if not self.log:
            return nice_ticks(self.low, self.high, most)
        decades = [10.0**power for power in range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1)]
        if len(decades) < 2:
            inside = 10**self.low, 10**self.high
            return [tick for tick in nice_ticks(*inside, most) if inside[0] <= tick <= inside[1]]
        return decades[:: math.ceil(len(decades) / most)]


def _grid(x: _Axis, y: _Axis) -> list[str]:
    parts = []
    for tick in y.ticks(8):
        at = f"{y(tick):.1f}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at}" dy="0.32em" text-anchor="end">{_label(tick)}</text>')
    for tick in [tick for tick in x.ticks(7) if tick == int(tick)]:
        at = f"{x(tick):.1f}"
        bottom = HEIGHT - _BOTTOM
        parts.append(f'<line class="axis" x1="{at}" x2="{at}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text x="{at}" y="{bottom + 18}" text-anchor="middle">{_label(tick)}</text>')
    parts.append(
        f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{HEIGHT - _BOTTOM}" y2="{HEIGHT - _BOTTOM}"/>'
    )
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text class="name" x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle">iteration</text>')
    return parts


def _line(line: Series, x: _Axis, y: _Axis, *, colour: int, smooth: bool) -> list[str]:
    steps, values = _thinned(line.steps, line.values)
    name = escape(line.name)
    parts = []
    if smooth and len(values) >= 80:
        parts.append(_polyline(steps, values, x, y, f"line raw c{colour}"))
        start, means = running_mean(values)
        parts.append(_polyline(steps[start : start + len(means)], means, x, y, f"line c{colour}"))
    else:
        parts.append(_polyline(steps, values, x, y, f"line c{colour}"))
    if len(values) <= 60:
        parts += [
            f'<circle class="c{colour}" cx="{x(step):.1f}" cy="{y(value):.1f}" r="2.6">'
            f"<title>{name}, iteration {step:g}: {value:.4g}</title></circle>"
            for step, value in zip(steps, values, strict=True)
        ]
    return parts


def _polyline(steps: Sequence[float], values: Sequence[float], x: _Axis, y: _Axis, classes: str) -> str:
    points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, values, strict=True))
    return f'<polyline class="{classes}" points="{points}"/>'


def _thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    bucket = -(-len(values) // _MOST_POINTS)
    if bucket <= 1:
        return list(steps), list(values)
    starts = range(0, len(values), bucket)
    return (
        [float(np.mean(steps[start : start + bucket])) for start in starts],
        [float(np.mean(values[start : start + bucket])) for start in starts],
    )


def _label(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:,.10g}"
