"""Charts: SVG that takes its colours from the page around it, light or dark."""

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

Curve = tuple[Sequence[float], Sequence[float]]
"""Steps, ascending, and finite values."""

INK, RULE = "#010100", "#010101"
LINES = ("#010200", "#010201", "#010202", "#010203", "#010204", "#010205")
"""Stand-ins that `svg` replaces by the page's colours."""
LIGHT = {INK: "#5d6878", RULE: "#dde2e9"} | dict(
    zip(LINES, ("#2563a8", "#c2571a", "#2f7d4f", "#8b3fa0", "#8a6d00", "#b3266b"), strict=True)
)
DARK = {INK: "#9aa6b6", RULE: "#343d4b"} | dict(
    zip(LINES, ("#7db4f0", "#f2a06b", "#7fd1a0", "#d09be0", "#e0c35a", "#f28fbd"), strict=True)
)
NAMES = {INK: "--soft", RULE: "--rule"} | {colour: f"--c{place}" for place, colour in enumerate(LINES)}
MOST_POINTS = 400


def style(colours: Mapping[str, str]) -> str:
    """The page's variables for charts, as CSS declarations."""
    return " ".join(f"{NAMES[stand_in]}: {colour};" for stand_in, colour in colours.items())


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Any, list[Any]]:
    """A matplotlib figure (inches) and its axes in one row, in stand-in colours."""
    from matplotlib.figure import Figure  # matplotlib takes most of a second, and not every command draws

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for one in axes:
        one.set_prop_cycle(color=LINES)
        one.grid(color=RULE, linewidth=0.8)
        one.tick_params(colors=INK, labelsize=11)
        one.xaxis.label.set_color(INK)
        one.yaxis.label.set_color(INK)
        for side, spine in one.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(INK)
    return figure, list(axes)


def svg(figure: Any, label: str, *, alone: bool = False) -> str:
    """A figure as an `<svg>` element; `alone`: as a file of its own, with colours for light and dark."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": label, "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for stand_in, name in NAMES.items():
        text = text.replace(stand_in, f"var({name})")
    # The page sizes it; what it shows is said for those who do not see it.
    text = re.sub(r'(<svg [^>]*?) (?:width|height)="[^"]*"(.*?) (?:width|height)="[^"]*"', r"\1\2", text, count=1)
    head, rest = text.split(">", 1)
    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {style(DARK)} }} }}"
    scheme = f"<style>:root {{ {style(LIGHT)} }} {dark}</style>" if alone else ""
    return f'{head} role="img" aria-label="{escape(label)}">{scheme}{rest}'


def curves_svg(title: str, curves: Mapping[str, Curve], *, smooth: bool = False, share: bool = False) -> str:
    """Lines over the iterations; long ones are drawn as means of neighbours, points of short ones are marked.

    `smooth` is for losses that jump: a running mean over the pale raw line. `share` is for shares of one, with an axis
    from 0 to 1; without it rates that span decades get a logarithmic scale.
    """
    figure, [axes] = new_figure(5.6, 2.7)
    for place, (name, curve) in enumerate(curves.items()):
        colour = LINES[place % len(LINES)]
        steps, values = (_thinned(part) for part in curve)
        mark = "o" if len(steps) <= 60 else None
        if smooth and len(values) >= 80:
            axes.plot(steps, values, color=colour, alpha=0.35, linewidth=0.8)
            window = len(values) // 40
            start = (window - 1) // 2  # every mean is over a whole window
            values = np.convolve(values, np.ones(window) / window, mode="valid")
            steps, mark = steps[start : start + len(values)], None
        axes.plot(steps, values, color=colour, linewidth=1.7, marker=mark, markersize=3, label=plain_label(name))
    everything = [value for _, values in curves.values() for value in values]
    if share:
        axes.set_ylim(0, max(1.0, *everything) * 1.02)
    elif min(everything) > 0 and max(everything) > 20 * min(everything) and not smooth:
        axes.set_yscale("log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("iteration", fontsize=11)
    if len(curves) > 1:
        axes.legend(fontsize=10, labelcolor=INK, frameon=False)
    return svg(figure, f"{title}: {', '.join(curves)}")


def plain_label(text: str) -> str:
    """A text that matplotlib does not take for a formula or a hidden label."""
    return text.lstrip("_").replace("$", r"\$")


def _thinned(values: Sequence[float]) -> np.ndarray:
    bucket = -(-len(values) // MOST_POINTS)
    return np.array([float(np.mean(values[start : start + bucket])) for start in range(0, len(values), bucket)])
