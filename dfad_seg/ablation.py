"""Ablations: one config, some of its keys varied, several seeds; every run an ordinary run directory."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfad_seg.common.errors import Diverged, InputError
from dfad_seg.common.files import write_json, write_text, write_whole
from dfad_seg.config import Config, dump_config, load_config
from dfad_seg.recipes import evaluate_network, load_role, student_steps, train, train_once
from dfad_seg.runs import read_metrics
from dfad_seg.runs.ablation import ablation_plot, ablation_rows, ablation_table
from dfad_seg.runs.summary import TEST_METRICS, place_in, put_into, write_test_score

MODES = ("one-at-a-time", "grid")
BASE = "base"
TIMED = (3, 13)
"""The iterations whose time is taken for `minutes`: the first allocate memory and fill the replay memory."""


@dataclass(frozen=True)
class Setting:
    """One variant of the config."""

    name: str
    overrides: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The name as that of a folder."""
        return re.sub(r"[^\w.=+-]+", "_", self.name).strip("_")


def parse_vary(text: str) -> list[Setting]:
    """`key=v1,v2` as one setting per value; `key=v1@other=x,v2` changes other keys along with a value.

    Values are YAML; commas inside brackets, braces and quotes do not separate.

    Raises:
        InputError: not of this form.
    """
    key, separator, values = text.partition("=")
    parts = [part.strip() for part in _split(values)]
    if not separator or not key or not all(parts):
        raise InputError(f"--vary: '{text}' is not of the form key=value,value (or key=value@other=value,value).")
    settings = []
    for part in parts:
        value, *others = part.split("@")
        if any("=" not in other for other in others):
            raise InputError(f"--vary: in '{part}', what follows @ must be of the form key=value.")
        settings.append(Setting(f"{key}={part}", (f"{key}={value}", *others)))
    return settings


def build_settings(vary: Sequence[str], mode: str) -> list[Setting]:
    """The settings of an ablation; for `"one-at-a-time"` the unchanged config comes first.

    Raises:
        InputError: a value of `--vary` is malformed, or two settings would share a folder.
    """
    groups = [parse_vary(text) for text in vary]
    if mode == "grid":
        settings = [
            Setting(", ".join(s.name for s in chosen), tuple(o for s in chosen for o in s.overrides))
            for chosen in itertools.product(*groups)
        ]
    else:
        settings = [Setting(BASE, ()), *itertools.chain.from_iterable(groups)]
    folders = [setting.folder for setting in settings]
    twice = sorted({folder for folder in folders if folders.count(folder) > 1})
    if twice:
        raise InputError(f"--vary: two settings have the same name, {', '.join(twice)}. Remove one.")
    return settings


def ablate(
    config: str | Path,
    *,
    vary: Sequence[str],
    seeds: Sequence[int],
    work_dir: str | Path,
    mode: str = "one-at-a-time",
    minutes: float | None = None,
    overrides: Sequence[str] = (),
    test: bool = False,
    table_only: bool = False,
    into: str | Path | None = None,
    name: str | None = None,
    command: str = "",
) -> str:
    """Run what is missing of an ablation, and write its table, plot and JSON from the run directories.

    Runs lie in `work_dir/SETTING/seed_N`. Finished ones are kept, interrupted ones go on where they were; one that
    diverges is reported, counted as unfinished, and does not keep the others from running. A setting equal to the
    unchanged config is not run twice.

    Args:
        config: the config file.
        vary: see `parse_vary`.
        seeds: of every setting.
        work_dir: gets the runs, `ablation.md`, `ablation.json` and `ablation.png`.
        mode: `"one-at-a-time"`: the unchanged config, and each value alone; `"grid"`: every combination.
        minutes: wall-clock time that every setting gets, evaluation apart, instead of the config's iterations. Each
            setting is timed first, by turns and twice, and its faster time per iteration fixes its iterations, the same
            for all seeds. They are kept in `work_dir/timing.json`, so that repeating the command changes nothing; the
            runs must be made on the machine that was timed, with the same load.
        overrides: `key=value` of all settings.
        test: score every finished network on the test split as well, after all training.
        table_only: train nothing.
        into, name: put the table between the markers of that name in a Markdown file, and under it the plot, which
            goes to `images/NAME.png` beside the file.
        command: noted in the runs' provenance.

    Returns:
        The table, as Markdown.

    Raises:
        InputError: malformed settings, a config that is wrong in one of them, or no place of that `name`; found
            before the first run starts.
        Interrupted: the present run has been saved; the same command goes on.
    """
    work_dir = Path(work_dir)
    if len(set(seeds)) < len(seeds):
        raise InputError(f"seeds {', '.join(map(str, seeds))}: each counts once, so leave the repeated ones out.")
    base = load_config(config, list(overrides))
    settings = []
    for setting in build_settings(vary, mode):
        changed = dump_config(load_config(config, [*overrides, *setting.overrides])) != dump_config(base)
        if changed or setting.name == BASE or mode == "grid":
            settings.append(setting)
    if base.evaluation is None:
        raise InputError(f"{config}: an ablation compares scores, and this config has no evaluation. Add one.")
    if into is not None and name is not None:
        place_in(into, name)
    lengths: dict[str, list[str]] = {setting.name: [] for setting in settings}
    if minutes is not None:
        iterations = _equal_time(config, settings, overrides, work_dir, minutes, table_only=table_only)
        lengths = {name: [f"iterations={count}"] for name, count in iterations.items()}
    # Seed by seed, so that an unfinished ablation compares all settings on the seeds that it has.
    runs = {
        (setting.name, seed): (
            load_config(config, [*overrides, *setting.overrides, *lengths[setting.name], f"seed={seed}"]),
            work_dir / setting.folder / f"seed_{seed}",
        )
        for seed in seeds
        for setting in settings
    }
    for resolved, run in () if table_only else runs.values():
        try:
            train_once(resolved, run, command=command)
        except Diverged as error:
            print(f"{run}: {error}", flush=True)
    for resolved, run in runs.values() if test else ():
        _score(resolved, run, command)
    folders = {setting.name: [runs[setting.name, seed][1] for seed in seeds] for setting in settings}
    rows = ablation_rows(folders)
    table = ablation_table(rows)
    write_json(work_dir / "ablation.json", {"config": str(config), "command": command, "rows": rows})
    write_text(work_dir / "ablation.md", table)
    ablation_plot(work_dir / "ablation.png", rows)
    if into is not None and name is not None:
        picture = Path("images") / (re.sub(r"[^\w.-]", "_", name) + ".png")
        drawn = (work_dir / "ablation.png").read_bytes()
        write_whole(Path(into).parent / picture, lambda handle: handle.write(drawn))
        put_into(
            into, name, f"{table}\n![mIoU of each setting: mean, standard deviation, seeds]({picture.as_posix()})\n"
        )
    return table


def _equal_time(
    config: str | Path,
    settings: Sequence[Setting],
    overrides: Sequence[str],
    work_dir: Path,
    minutes: float,
    *,
    table_only: bool,
) -> dict[str, int]:
    """Iterations that each setting makes in `minutes`, by name."""
    file = work_dir / "timing.json"
    times: dict[str, float] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    missing = [setting for setting in settings if setting.name not in times]
    if missing and table_only:
        raise InputError(f"{file} has no time of {missing[0].name}. Leave --table-only out to measure and run it.")
    first, last = TIMED
    short = ["evaluation=null", f"iterations={last}", "log_every=1", "save_every=0"]
    measured: dict[str, list[float]] = {setting.name: [] for setting in missing}
    for _ in range(2):
        for setting in missing:
            run = work_dir / "timing" / setting.folder
            shutil.rmtree(run, ignore_errors=True)
            changes = [*overrides, *setting.overrides]
            train(load_config(config, [*changes, *short, *_steady(load_config(config, changes))]), run)
            elapsed = {line["step"]: line["elapsed_s"] for line in read_metrics(run)}
            measured[setting.name].append((elapsed[last] - elapsed[first]) / (last - first))
    if missing:
        times |= {name: min(found) for name, found in measured.items()}
        write_json(file, times)
        shutil.rmtree(work_dir / "timing")
    return {setting.name: max(1, round(60 * minutes / times[setting.name])) for setting in settings}


def _steady(config: Config) -> list[str]:
    """Overrides under which a short run's iterations cost what those of the whole run cost on average."""
    if not config.data_free:
        return []
    steps = student_steps(config)
    new, again = (max(1, round(statistics.mean(kind))) for kind in zip(*steps, strict=True))
    overrides = ["preview_every=0", f"student_steps={new}", "final_student_steps=null"]
    if config.replay_size:
        overrides += [f"replay_steps={again}", "final_replay_steps=null"]
    return overrides


def _score(config: Config, run: Path, command: str) -> None:
    """Write a finished run's score on the test split, unless it is there."""
    file = run / f"{config.trained_role}.pt"
    if not file.exists() or (run / TEST_METRICS).exists():
        return
    metrics = evaluate_network(
        config, load_role(config, config.trained_role, file), split="test", title=f"scoring {run}"
    )
    write_test_score(run, metrics, role=config.trained_role, command=command)


def _split(text: str) -> list[str]:
    """At the commas outside brackets, braces and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "[{(":
            depth += 1
        elif character in ")}]":
            depth -= 1
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts
