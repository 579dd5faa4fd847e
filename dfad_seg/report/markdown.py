"""A report as Markdown, for places that show no HTML; pictures are linked where they lie in the run directory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from dfad_seg.report.parts import Chart, Content, Picture, Table


def render_markdown(content: Content, run: Path) -> str:
    """The page; what comes from files is escaped, so that it is shown as it is and makes no markup."""
    blocks = [f"# {plain(content.title)}", plain(content.status), f"**{plain(content.claim)}**"]
    if content.headline:
        blocks.append("\n".join(f"- {plain(what)}: **{plain(value)}**" for what, value in content.headline))
    if content.warnings:
        blocks += ["## Health", "\n".join(f"- ⚠ {plain(sentence)}" for sentence in content.warnings)]
    elif content.healthy:
        blocks += ["## Health", plain(content.healthy)]
    for title, table in (("What was distilled into what", content.networks), ("IoU by class", content.classes)):
        if table is not None:
            blocks += [f"## {title}", _table(table), plain(table.note)]
    for title, pictures in (
        ("Generated images over time", content.generated),
        ("Best and worst images", content.examples),
    ):
        if pictures:
            blocks += [f"## {title}", *(_picture(picture, run) for picture in pictures)]
    if content.charts:
        blocks += ["## Curves", _charts(content.charts)]
    if content.provenance:
        rows = [[name, value] for name, value in content.provenance]
        blocks += ["## Provenance", _table(Table(["what", "value"], rows, words=2))]
    if content.missing:
        blocks += ["## Not readable", "\n".join(f"- {plain(line)}" for line in content.missing)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def plain(text: str) -> str:
    """Text that Markdown shows as it is: one line, every sign that could begin markup escaped."""
    flat = " ".join(text.split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Signs that mean something only at the start of a line are caught there; in words they stay readable.
    flat = re.sub(r"([\\`*\[\]|]|(?<!\w)_|_(?!\w))", r"\\\1", flat)
    # Not every dialect knows these with a backslash.
    flat = flat.replace("~", "&#126;").replace("$", "&#36;")
    # Bare addresses would become links.
    flat = re.sub(r"(?i)\b(https?|ftp)://", r"\1&#58;//", flat)
    return re.sub(r"^(\d+)([.)])(?=\s|$)|^(#|[+=-]+(?=\s|$))", _at_start, flat)


def _at_start(match: re.Match[str]) -> str:
    return f"{match[1]}\\{match[2]}" if match[1] else f"\\{match[3]}"


def _table(table: Table) -> str:
    rule = ["---"] * table.words + ["---:"] * (len(table.headers) - table.words)
    lines = [table.headers, *table.rows]
    header, *rows = ("| " + " | ".join(map(plain, line)) + " |" for line in lines)
    return "\n".join([header, "|" + "|".join(rule) + "|", *rows])


def _picture(picture: Picture, run: Path) -> str:
    where = quote(picture.file.resolve().relative_to(run.resolve()).as_posix())
    return f"![{plain(picture.caption)}]({where})\n\n{plain(picture.caption)}"


def _charts(charts: Sequence[Chart]) -> str:
    """First, lowest, highest and last value of each line; the drawn curves are in report.html."""
    headers = ["curve", "first", "lowest", "highest", "last"]
    rows = [
        [
            chart.title if line.name == chart.title else f"{chart.title}: {line.name}",
            *(f"{value:.4g}" for value in (line.values[0], min(line.values), max(line.values), line.values[-1])),
        ]
        for chart in charts
        for line in chart.series
    ]
    return _table(Table(headers, rows))
