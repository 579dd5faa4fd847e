"""Writing both forms of a report."""

from __future__ import annotations

from pathlib import Path

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_text
from dfad_seg.report.content import read_content
from dfad_seg.report.html import render_html
from dfad_seg.report.markdown import render_markdown

REPORT_FILES = ("report.html", "report.md")


def write_report(run: str | Path) -> Path:
    """Write `report.html` and `report.md` into a run directory, from its files as they stand; returns the former.

    Raises:
        InputError: the folder is not a run directory, or cannot be written to.
    """
    run = Path(run)
    content = read_content(run)
    try:
        write_text(run / "report.md", render_markdown(content, run))
        write_text(run / "report.html", render_html(content))
    except OSError as error:
        raise InputError(f"cannot write the report of {run}: {error.strerror}.") from None
    return run / "report.html"
