"""Tables in plain text that copies well, and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percent(value: float, *, signed: bool = False) -> str:
    """A fraction in per cent with two decimals, or `nan`."""
    return "nan" if math.isnan(value) else f"{100 * value:+.2f}" if signed else f"{100 * value:.2f}"


def align(body: Sequence[Sequence[str]], summary: Sequence[Sequence[str]] = (), *, markdown: bool = False) -> str:
    """Align the cells: the first column to the left, all others to the right."""
    if markdown:
        body = [[cell.replace("|", r"\|") for cell in row] for row in body]
    lines = [*body, *summary]
    widths = [max(len(row[index]) for row in lines) for index in range(len(lines[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return f"| {' | '.join(cells)} |" if markdown else "  ".join(cells).rstrip()

    if markdown:
        # A Markdown column needs three dashes at least; the colon aligns it to the right.
        dashes = ["-" * max(3, widths[0]), *("-" * max(2, width - 1) + ":" for width in widths[1:])]
        return "\n".join([line(body[0]), f"| {' | '.join(dashes)} |", *map(line, [*body[1:], *summary])])
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    blocks = [line(body[0]), rule, *map(line, body[1:])]
    return "\n".join([*blocks, rule, *map(line, summary)] if summary else blocks)
