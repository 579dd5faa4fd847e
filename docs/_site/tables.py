"""Write the tables of results, and the curve of size against quality, into the pages: python docs/_site/tables.py

Rows come from docs/results.json, where `dfad-seg compare RUNS --setting NAME --results docs/results.json` puts them.
A table stands in a page between `<!-- begin NAME -->` and `<!-- end NAME -->`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from dfad_seg.runs.compare import Row, curve

DOCS = Path(__file__).resolve().parents[1]
CURVE = DOCS / "images" / "size_share.svg"
TABLES = {
    "readme-results": (
        "../README.md",
        "camvid-cut-50",
        "camvid-imagenet",
        "camvid-random-30min",
        "street-scenes-demo",
        "resnet",
        "voc",
    ),
    "camvid": ("results.md", "camvid"),
    "foreign": ("results.md", "foreign"),
    "street-scenes": ("results.md", "street-scenes", "resnet"),
    "voc": ("results.md", "voc"),
}
"""Name -> page, and how the settings of its rows begin."""
CONTROLS = ("random_noise", "distill_with_data", "dfad as published", "untrained")
"""Methods that stand in the results alone."""


def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DOCS / "results.json").read_text(encoding="utf-8"))
    return found


def table(name: str) -> str:
    """Markdown; the short form leaves out controls, weights and commands."""
    page, *beginnings = TABLES[name]
    chosen = [row for start in beginnings for row in rows() if row["setting"].startswith(start)]
    full = page == "results.md"
    heads = ["setting", "mIoU", "of the teacher's", "seeds", "MACs", "parameters", "minutes"]
    lines = [heads + ["method, weights", "command"] * full]
    for row in chosen:
        if not full and row["method"] in CONTROLS:
            continue
        spread = "" if row["student_miou_sd"] is None else f" ± {row['student_miou_sd']:.3f}"
        share = f"{row['student_miou_mean'] / row['teacher_miou']:.1%} of {row['teacher_miou']:.3f}"
        costs = ["–" if row[key] is None else f"{row[key]:.0%}" for key in ("macs_share", "parameters_share")]
        cells = [row["setting"], f"{row['student_miou_mean']:.3f}{spread}", share, str(len(row["seeds"])), *costs]
        cells.append(f"{row['wall_clock_s'] / 60:.0f}")
        lines.append(cells + [f"{row['method']}, {row['selected']}", f"`{row['command']}`"] * full)
    text = ["| " + " | ".join(cells) + " |" for cells in lines]
    places = "; ".join(sorted({row["device"] for row in chosen}))
    trained = [] if page == "../README.md" else ["", f"Trained on {places}."]
    return "\n".join([text[0], "|---|" + "---:|" * 6 + "---|---|" * full, *text[1:], *trained, ""])


def filled(page: str, text: str) -> str:
    """A page's text with its tables anew."""
    for name in (name for name, (where, *_) in TABLES.items() if where == page):
        pattern = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
        text = re.sub(pattern, lambda m, name=name: m[1] + table(name) + m[2], text, flags=re.S)
    return text


def main() -> None:
    for page in {page for page, *_ in TABLES.values()}:
        file = DOCS / page
        file.write_text(filled(page, file.read_text(encoding="utf-8")), encoding="utf-8")
    drawn = ("camvid-cut", "camvid-imagenet", "camvid-random", "resnet")
    shown = [Row(**row, unfinished=0, changed="") for row in rows() if row["setting"].startswith(drawn)]
    fp32 = [row for row in shown if row.method not in CONTROLS and "int8" not in row.method]
    CURVE.write_text(curve(fp32), encoding="utf-8")


if __name__ == "__main__":
    main()
