"""The report of a run, `report.html` and `report.md`, made from nothing but the files of its run directory."""

from dfad_seg.report.content import Content, read_content
from dfad_seg.report.writing import REPORT_FILES, write_report

__all__ = ["REPORT_FILES", "Content", "read_content", "write_report"]
