"""A report as one HTML file that needs nothing else: style and charts inline, pictures as data."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from dfad_seg.report.parts import Chart, Content, Picture, Table
from dfad_seg.report.style import CSS
from dfad_seg.report.svg import chart_svg

# Nothing may be fetched, and nothing runs, whatever a class or a file is called.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render_html(content: Content) -> str:
    """The page; everything that comes from files is escaped."""
    state = "finished" if content.finished else "running"
    body = [
        f'<header><h1>{escape(content.title)}</h1><p class="status {state}">{escape(content.status)}</p></header>',
        _claim(content),
        _headline(content.headline),
        _health(content),
        _section("What was distilled into what", _table(content.networks)),
        _section("IoU by class", _table(content.classes)),
        _section("Generated images over time", _pictures(content.generated)),
        _section("Best and worst images", _pictures(content.examples)),
        _section("Curves", _charts(content.charts)),
        _section("Provenance", _definitions(content.provenance) + _config(content.config)),
        _section("Not readable", _list(content.missing)),
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(content.title)}</title>",
            f"<style>{CSS}</style>",
            "</head>",
            "<body><main>",
            *(part for part in body if part),
            "</main></body>",
            "</html>",
            "",
        ]
    )


def embedded(file: Path) -> str | None:
    """A picture as a `data:` address, WebP, which has a sixth of the PNG's size; None if it cannot be read."""
    try:
        with Image.open(file) as picture:
            buffer = io.BytesIO()
            picture.convert("RGB").save(buffer, "WEBP", quality=88)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _section(title: str, inner: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{inner}\n</section>" if inner else ""


def _claim(content: Content) -> str:
    kind, mark = {True: ("good", "✓"), False: ("neutral", "•"), None: ("neutral", "?")}[content.data_free]
    return f'<p class="claim {kind}"><span aria-hidden="true">{mark}</span> {escape(content.claim)}</p>'


def _headline(numbers: Sequence[tuple[str, str]]) -> str:
    tiles = [f"<div><strong>{escape(value)}</strong><span>{escape(what)}</span></div>" for what, value in numbers]
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _health(content: Content) -> str:
    if content.warnings:
        return _section("Health", _list(content.warnings, "warnings"))
    return _section("Health", f'<p class="claim good">{escape(content.healthy)}</p>' if content.healthy else "")


def _list(sentences: Iterable[str], kind: str = "") -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="{kind}">{items}</ul>' if items else ""


def _table(table: Table | None) -> str:
    if table is None:
        return ""
    kinds = ['class="word"' if place < table.words else "" for place in range(len(table.headers))]
    lines = ['<div class="scroll"><table>', "<thead><tr>"]
    lines += [f'<th scope="col" {kind}>{escape(head)}</th>' for head, kind in zip(table.headers, kinds, strict=True)]
    lines.append("</tr></thead><tbody>")
    for number, row in enumerate(table.rows):
        cells = [f'<th scope="row" class="word">{escape(row[0])}</th>']
        cells += [f"<td {kind}>{escape(cell)}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True)]
        if table.bars:
            width = 100 * min(1.0, max(0.0, table.bars[number] or 0.0))
            cells[-1] = f'<td class="bar" style="--share:{width:.1f}%">{escape(row[-1])}</td>'
        lines.append(f"<tr>{''.join(cells)}</tr>")
    lines.append("</tbody></table></div>")
    return "\n".join(lines) + (f'<p class="note">{escape(table.note)}</p>' if table.note else "")


def _pictures(pictures: Sequence[Picture]) -> str:
    figures = []
    for picture in pictures:
        data = embedded(picture.file)
        if data is not None:
            caption = escape(picture.caption)
            figures.append(f'<figure><img alt="{caption}" src="{data}"><figcaption>{caption}</figcaption></figure>')
    return f'<div class="pictures">{"".join(figures)}</div>' if figures else ""


def _charts(charts: Sequence[Chart]) -> str:
    figures = []
    for chart in charts:
        legend = ""
        if len(chart.series) > 1:
            entries = (f'<li class="c{i % 6}">{escape(line.name)}</li>' for i, line in enumerate(chart.series))
            legend = f'<ul class="legend">{"".join(entries)}</ul>'
        figures.append(f"<figure><h3>{escape(chart.title)}</h3>{legend}{chart_svg(chart)}</figure>")
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def _definitions(rows: Sequence[tuple[str, str]]) -> str:
    entries = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    return f"<dl>{entries}</dl>" if entries else ""


def _config(text: str) -> str:
    return f"<details><summary>config.yaml</summary><pre>{escape(text)}</pre></details>"
