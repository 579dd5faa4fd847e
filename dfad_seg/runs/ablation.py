"""The table and the plot of an ablation, made from its run directories."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfad_seg.common.files import write_whole
from dfad_seg.runs.summary import summarise

KEPT = ("student.pt", "teacher.pt")
"""What only a finished run has; one that diverged may have `last_good_student.pt`."""


def ablation_rows(settings: Mapping[str, Sequence[Path]]) -> list[dict[str, Any]]:
    """What the finished runs of each setting say, the settings in their order.

    Args:
        settings: by name, the run directories of its seeds. Runs that have not finished are counted and left out.

    Returns:
        Mappings with `setting`, `seeds`, `unfinished` (how many runs), `split`, `miou` (by seed, the last evaluation on
        the way), `test_miou` (by seed, of those scored), `selected`, `iterations`, and `minutes` (mean wall-clock).
    """
    rows = []
    for name, folders in settings.items():
        finished = [summarise(folder) for folder in folders if any((folder / name).exists() for name in KEPT)]
        rows.append(
            {
                "setting": name,
                "seeds": [run.seed for run in finished],
                "unfinished": len(folders) - len(finished),
                "split": finished[0].split if finished else None,
                "miou": [run.curve[-1][1] for run in finished if run.curve],
                "test_miou": [run.test["mIoU"] for run in finished if run.test is not None],
                "selected": finished[0].selected if finished else None,
                "iterations": finished[0].iterations if finished else None,
                "minutes": statistics.mean(60 * run.hours for run in finished) if finished else None,
                "where": sorted({f"{run.device}, code {str(run.commit)[:12]}" for run in finished}),
            }
        )
    return rows


def ablation_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown: mean ± standard deviation over seeds, and the difference to the first row."""
    split = next((row["split"] for row in rows if row["split"]), "val")
    lines = [
        f"| setting | {split} mIoU | difference | test mIoU | seeds | weights | iterations | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = rows[0]["miou"] if rows else []
    for row in rows:
        gap = "–"
        if row is not rows[0] and base and row["miou"]:
            gap = f"{statistics.mean(row['miou']) - statistics.mean(base):+.3f}"
        seeds = ", ".join(map(str, row["seeds"])) or "–"
        seeds += f" ({row['unfinished']} unfinished)" if row["unfinished"] else ""
        minutes = "–" if row["minutes"] is None else f"{row['minutes']:.1f}"
        lines.append(
            f"| {row['setting']} | {_spread(row['miou'])} | {gap} | {_spread(row['test_miou'])} | {seeds} "
            f"| {row['selected'] or '–'} | {row['iterations'] or '–'} | {minutes} |"
        )
    where = sorted({place for row in rows for place in row["where"]})
    return "\n".join(lines) + (f"\n\nMeasured on {'; '.join(where)}.\n" if where else "\n")


def ablation_plot(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a PNG: one line per setting with mean and standard deviation of the mIoU, and each seed as a dot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [row for row in rows if row["miou"]]
    labels = [_label(row["setting"]) for row in shown]
    height = sum(max(0.45, 0.22 * label.count("\n") + 0.3) for label in labels)
    figure = Figure(figsize=(8, 1.2 + max(0.45, height)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, row in enumerate(shown):
        mean = statistics.mean(row["miou"])
        deviation = statistics.stdev(row["miou"]) if len(row["miou"]) > 1 else 0.0
        axes.barh(place, mean, xerr=deviation, color="tab:blue" if place else "tab:gray", alpha=0.5, capsize=3)
        axes.scatter(row["miou"], [place] * len(row["miou"]), color="black", s=14, zorder=3)
    axes.set_yticks(range(len(shown)), labels, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(f"{shown[0]['split']} mIoU" if shown else "mIoU: no run has finished")
    axes.grid(axis="x", alpha=0.3)
    write_whole(path, lambda handle: figure.savefig(handle, format="png", dpi=110))


def _label(setting: str) -> str:
    """A line for each key that a setting changes, and more for a long one, so that the bars keep their room."""
    return "\n".join(line for change in setting.split("@") for line in textwrap.wrap(change, 40))


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean
