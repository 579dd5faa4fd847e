"""What a run leaves behind: one reader, one writer, one report, one comparison, and the progress on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dfad_seg.runs.checkpoints import checkpoints, read_checkpoint
from dfad_seg.runs.compare import compare, markdown, update_results, write_comparison
from dfad_seg.runs.directory import RunDirectory, note_evaluation, note_score, update_summary
from dfad_seg.runs.report import write_report
from dfad_seg.runs.run import Run


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """`Run(run).records`; none where no run has begun."""
    return Run(run).records if (Path(run) / "config.yaml").exists() else []


def read_events(run: str | Path) -> list[dict[str, Any]]:
    """`Run(run).events`."""
    return Run(run).events
