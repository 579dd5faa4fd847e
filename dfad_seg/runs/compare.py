"""The one comparison of runs: seeds of one experiment are a row of mean ± standard deviation; nothing is selected."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import check_target, write_csv, write_json, write_text
from dfad_seg.common.reading import read_json
from dfad_seg.runs.charts import INK, LINES, new_figure, plain_label, svg
from dfad_seg.runs.directory import experiment_values
from dfad_seg.runs.records import Score
from dfad_seg.runs.run import Run
from dfad_seg.runs.tables import percent

COSTS = {"macs_share": "MACs", "parameters_share": "parameters", "latency_share": "latency"}


@dataclass(frozen=True)
class Row:
    """Finished runs that differ in their seed alone; shares are fractions of the teacher's.

    Attributes:
        setting: a name for the row, from the folders' names by default.
        method: of the config, or a name for a kind of student: one line of the curve.
        teacher_miou: on it; None if nothing says it.
        student_miou_mean: of the weights that are kept, over the seeds.
        student_miou_sd: over the seeds; None for a single one.
        selected: which weights are kept, last or ema.
        start_miou: before any training, mean over the seeds, where it was measured.
        wall_clock_s: of training, mean over the seeds.
        unfinished: how many runs are left out, as they have not finished.
        changed: the keys of the config in which the compared rows differ.
    """

    setting: str
    method: str
    split: str
    teacher_miou: float | None
    student_miou_mean: float
    student_miou_sd: float | None
    seeds: list[int]
    selected: str
    macs_share: float | None
    parameters_share: float | None
    latency_share: float | None
    start_miou: float | None
    wall_clock_s: float
    device: str
    teacher_sha256: str | None
    command: str
    unfinished: int
    changed: str

    @property
    def share(self) -> float | None:
        """The student's share of the teacher's mIoU."""
        return self.student_miou_mean / self.teacher_miou if self.teacher_miou else None


def compare_runs(
    runs: Sequence[str | Path], *, out: str | None = None, results: str | None = None, **how: str | None
) -> None:
    """Print the table of runs, after its files were written into `out` and its rows into the list `results`.

    Raises:
        InputError: as `compare`, whose arguments `how` are; or a file cannot take the rows.
    """
    for name, path in (("--results", results), ("--out", out)):
        if path is not None:
            check_target(path, name, folder=name == "--out")
    rows = compare(runs, **how)
    if results is not None:
        update_results(results, rows)
    files = [] if out is None else write_comparison(rows, out)
    print(markdown(rows), end="")
    for file in files:
        print(file)


def compare(
    runs: Sequence[str | Path],
    *,
    teacher: str | Path | None = None,
    split: str | None = None,
    setting: str | None = None,
    method: str | None = None,
) -> list[Row]:
    """One row per experiment, in the order in which they are named; what has not finished is counted and left out.

    `teacher` is its run, for its score, where the runs do not have it; `setting` and `method` name a single row.
    """
    groups: dict[str, list[Run]] = {}
    for run in map(Run, runs):
        values = experiment_values(run.config) | {"seed": 0}
        groups.setdefault(str(sorted(values.items())), []).append(run)
    finished = {key: [run for run in group if run.network is not None] for key, group in groups.items()}
    if not any(finished.values()):
        raise InputError("none of these runs has finished, so there is nothing to compare. Finish one with --resume.")
    if len(groups) > 1 and (setting or method):
        raise InputError(f"these runs are of {len(groups)} experiments. Name a setting or method for one at a time.")
    changes = _changes([group[0] for group in groups.values()])
    reference = None if teacher is None else Run(teacher)
    rows = []
    for (key, done), changed in zip(finished.items(), changes, strict=True):
        if done:
            left_out = len(groups[key]) - len(done)
            rows.append(_row(done, reference, split, setting, method, unfinished=left_out, changed=changed))
    return rows


def write_comparison(rows: Sequence[Row], folder: str | Path) -> list[Path]:
    """Write `comparison.md`, `.json`, `.csv` and the curve as `.svg` into a folder; returns the files."""
    folder = Path(folder)
    files = [folder / f"comparison.{kind}" for kind in ("md", "json", "csv", "svg")]
    write_text(files[0], markdown(rows))
    write_json(files[1], [asdict(row) for row in rows])
    write_csv(files[2], [asdict(row) for row in rows])
    write_text(files[3], curve(rows))
    return files


def update_results(file: str | Path, rows: Sequence[Row]) -> None:
    """Put rows into a JSON list, in the places of those with their setting and method; all others stay."""
    file = Path(file)
    known = read_json(file, "the results") if file.exists() else []
    if not isinstance(known, list) or not all(isinstance(row, dict) for row in known):
        raise InputError(f"{file} is there and holds no list of results. Choose another file.")
    kept = [*known]
    for row in rows:
        values = {key: value for key, value in asdict(row).items() if key not in ("unfinished", "changed")}
        same = (place for place, old in enumerate(kept) if all(old.get(k) == values[k] for k in ("setting", "method")))
        place = next(same, len(kept))
        kept[place : place + 1] = [values]
    write_json(file, kept)


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table, and where they were measured."""
    heads = "setting, method, mIoU, of the teacher's, seeds, weights, MACs, parameters, latency, minutes, keys"
    lines = [f"| {heads.replace(', ', ' | ')} |", "|---|---|---:|---:|---|---|---:|---:|---:|---:|---|"]
    for row in rows:
        spread = "" if row.student_miou_sd is None else f" ± {row.student_miou_sd:.3f}"
        seeds = ", ".join(map(str, row.seeds)) + (f" ({row.unfinished} unfinished)" if row.unfinished else "")
        shares = [percent(share) for share in (row.macs_share, row.parameters_share, row.latency_share)]
        miou = f"{row.student_miou_mean:.3f}{spread}"
        cells = [row.setting, row.method, miou, percent(row.share), seeds, row.selected, *shares]
        cells += [f"{row.wall_clock_s / 60:.1f}", row.changed]
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    splits = ", ".join(sorted({row.split for row in rows}))
    places = "; ".join(sorted({row.device for row in rows}))
    return "\n".join(lines) + f"\n\nScored on the {splits} split. Trained on {places}.\n"


def curve(rows: Sequence[Row]) -> str:
    """The share of the teacher's mIoU against the shares of its costs that are known, as an SVG file.

    Rows of one method whose settings differ in a number at the end alone, such as `camvid-cut-50`, are a line.
    """
    lines: dict[str, list[Row]] = {}
    for row in rows:
        if row.share is not None:
            label = f"{re.sub(r'[-_][0-9.]+$', '', row.setting)}: {row.method}"
            lines.setdefault(plain_label(label), []).append(row)
    shown = [cost for cost in COSTS if any(getattr(row, cost) is not None for row in rows)]
    figure, panels = new_figure(3.8 * max(1, len(shown)), 3.6, columns=max(1, len(shown)))
    for axes, cost in zip(panels, shown, strict=False):
        for place, (label, mine) in enumerate(lines.items()):
            colour = LINES[place % len(LINES)]
            points = [(share, row) for row in mine if (share := getattr(row, cost)) is not None]
            points.sort(key=lambda point: point[0])
            x = [100 * share for share, _ in points]
            y = [100 * row.share for _, row in points]  # type: ignore[operator]
            spread = [100 * (row.student_miou_sd or 0) / row.teacher_miou for _, row in points]  # type: ignore[operator]
            axes.errorbar(x, y, spread, color=colour, marker="o", markersize=4, capsize=2, label=label)
            begun = [(share, row) for share, row in points if row.start_miou is not None]
            starts = [100 * row.start_miou / row.teacher_miou for _, row in begun]  # type: ignore[operator]
            style = {"color": colour, "marker": "o", "markersize": 4, "fillstyle": "none", "linestyle": ":"}
            if begun:
                axes.plot([100 * share for share, _ in begun], starts, label=f"{label}, untrained", **style)
        axes.margins(0.08)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{COSTS[cost]}, % of the teacher's", fontsize=10)
    panels[0].set_ylabel("mIoU, % of the teacher's", fontsize=10)
    named = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    look: dict[str, Any] = {"fontsize": 9, "labelcolor": INK, "frameon": False, "loc": "outside lower center"}
    figure.legend([named[label] for label in sorted(named)], sorted(named), ncols=len(panels), **look)
    return svg(figure, "mIoU of students against their MACs, parameters and latency", alone=True)


def _row(
    runs: list[Run], teacher: Run | None, split: str | None, setting: str | None, method: str | None, **more: Any
) -> Row:
    scores = [_score(run, split) for run in runs]
    first, summary, record = runs[0], runs[0].summary, runs[0].provenance
    assert summary is not None
    split = scores[0].split
    known = first.score("teacher", split=split) if summary.role == "student" else scores[0]
    if known is None and teacher is not None:
        known = _score(teacher, split)
    starts = [run.score(summary.role, split=split, weights="start") for run in runs]
    started = [score.mIoU for score in starts if score is not None]
    miou = [score.mIoU for score in scores]
    teachers = {run.provenance.teacher.file_sha256 for run in runs if run.provenance and run.provenance.teacher}
    if len(teachers) > 1:
        raise InputError(f"{first.path} and its other seeds are of different teachers. Compare them one at a time.")
    return Row(
        setting=setting or _name(first.path),
        method=method or first.kind,
        split=split,
        teacher_miou=None if known is None else known.mIoU,
        student_miou_mean=statistics.fmean(miou),
        student_miou_sd=statistics.stdev(miou) if len(miou) > 1 else None,
        seeds=[run.provenance.seed if run.provenance else 0 for run in runs],
        selected=summary.selected,
        macs_share=_share(first, "macs"),
        parameters_share=_share(first, "parameters"),
        latency_share=_share(first, "latency_s"),
        start_miou=statistics.fmean(started) if started else None,
        wall_clock_s=round(statistics.fmean(run.seconds for run in runs), 1),
        device="; ".join(sorted({run.provenance.device for run in runs if run.provenance})),
        teacher_sha256=next(iter(teachers), None),
        command="" if record is None else record.command,
        **more,
    )


def _score(run: Run, split: str | None) -> Score:
    summary = run.summary
    score = None if summary is None else run.score(summary.role, split=split)
    if score is None:
        on = "" if split is None else f" on the split {split}"
        raise InputError(f"{run.path} has no score{on}. Score it: dfad-seg eval {run.path} --split {split or 'SPLIT'}")
    return score


def _share(run: Run, cost: str) -> float | None:
    costs = run.summary.costs if run.summary else {}
    values = [getattr(costs[role], cost) for role in ("student", "teacher") if role in costs]
    return values[0] / values[1] if len(values) == 2 and values[0] is not None and values[1] else None


def _name(path: Path) -> str:
    """The folder's name without the seed; of `SETTING/seed_0` the setting."""
    path = path.resolve()
    name = re.sub(r"[_-]?seed[_-]?\d+$", "", path.name)
    return name or path.parent.name


def _changes(runs: Sequence[Run]) -> list[str]:
    """For each run, the keys in which the runs differ with its values; those of places and seeds are left out."""
    configs = [experiment_values(run.config) for run in runs]
    keys = {key for config in configs for key in config if key != "seed"}
    differing = [key for key in sorted(keys) if len({str(config.get(key)) for config in configs}) > 1]
    return [", ".join(f"{key}={config[key]}" for key in differing if key in config) for config in configs]
