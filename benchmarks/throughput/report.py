"""From raw times to ratios and a table."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from dfad_seg.common.files import write_text
from throughput.pairs import LABELS, STUDENT_STEPS


def summarise(runs: list[dict[str, Any]], batch: int) -> dict[str, Any]:
    """Of all processes of one variant: seconds per step, images/s of an iteration, the largest memory.

    The seconds are the median over the processes of each one's fastest step: what is slower was disturbed.
    """
    seconds = {
        f"{step}_{clock}": median(min(run[step][clock]) for run in runs)
        for step in ("student", "generator")
        for clock in ("wall_s", "cpu_s")
    }
    iteration = {clock: STUDENT_STEPS * seconds[f"student_{clock}"] + seconds[f"generator_{clock}"] for clock in CLOCKS}
    return {
        **seconds,
        "iteration_wall_s": iteration["wall_s"],
        "iteration_cpu_s": iteration["cpu_s"],
        "student_images_per_s": batch / seconds["student_wall_s"],
        "generator_images_per_s": batch / seconds["generator_wall_s"],
        "images_per_s": batch * (STUDENT_STEPS + 1) / iteration["wall_s"],
        "peak_memory_bytes": max(run["peak_memory_bytes"] for run in runs),
        "built_memory_bytes": max(run["built_memory_bytes"] for run in runs),
    }


CLOCKS = ("wall_s", "cpu_s")


def compare(
    plain: dict[str, Any], ours: dict[str, Any], *, flops: dict[str, float], rates: dict[str, float], batch: int
) -> dict[str, float]:
    """The ratios of one variant against the plain loop; FLOPs are those that the plain networks need."""
    work = batch * (STUDENT_STEPS * flops["student"] + flops["generator"])
    return {
        "images_per_s_ratio": ours["images_per_s"] / plain["images_per_s"],
        "student_step_ratio": plain["student_wall_s"] / ours["student_wall_s"],
        "generator_step_ratio": plain["generator_wall_s"] / ours["generator_wall_s"],
        "cpu_time_ratio": plain["iteration_cpu_s"] / ours["iteration_cpu_s"],
        "peak_memory_ratio": ours["peak_memory_bytes"] / plain["peak_memory_bytes"],
        **{f"fraction_of_{kind}_matmul": work / ours["iteration_wall_s"] / rate for kind, rate in rates.items()},
    }


def to_markdown(record: dict[str, Any]) -> str:
    """The tables of one JSON record."""
    plain, ours = record["plain"], record["ours"]
    where = f"{record['device']}, {record['threads']} thread{'s' if record['threads'] > 1 else ''}"
    size = record["size"]
    repeats = f"median of {record['repeats']} processes" if record["repeats"] > 1 else "one process each"
    lines = [
        f"{LABELS[record['pair']]}, batch {record['batch']}, {size}×{size}, {where}, torch {record['torch']}, "
        f"fastest step, {repeats}:",
        "",
        "| loop | S-step | G-step | images/s | peak memory | of fp32 matmul rate | of bf16 matmul rate |",
        "|---|---|---|---|---|---|---|",
        _row("(a) plain", plain, record["plain_fractions"]),
        _row("(b) ours, fp32", ours, record),
        f"| ratio | {record['student_step_ratio']:.2f}× | {record['generator_step_ratio']:.2f}× "
        f"| {record['images_per_s_ratio']:.2f}× | {record['peak_memory_ratio']:.2f}× | | |",
        *_bf16_rows(record),
        "",
        f"Processor time of an iteration ({STUDENT_STEPS} S-steps, 1 G-step): {plain['iteration_cpu_s']:.2f} s and "
        f"{ours['iteration_cpu_s']:.2f} s, {record['cpu_time_ratio']:.2f}×.",
        "",
    ]
    if record.get("recipe_iteration_s"):
        times = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in record["recipe_iteration_s"].items())
        lines += [f"An iteration of the recommended recipe: {times}.", ""]
    if record.get("rows"):
        lines += [
            "| (b) changed | S-step | G-step | images/s | peak memory | what it brings | in processor time |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in record["rows"]:
            faster, slower = (row, ours) if row["added"] else (ours, row)
            gain = faster["images_per_s"] / slower["images_per_s"]
            cpu_gain = slower["iteration_cpu_s"] / faster["iteration_cpu_s"]
            lines.append(f"| {row['what']} {_cells(row)}| {gain:.2f}× | {cpu_gain:.2f}× |")
        lines.append("")
    return "\n".join(lines)


def _bf16_rows(record: dict[str, Any]) -> list[str]:
    found = record.get("ours_bf16")
    if found is None:
        return []
    return [
        _row("(c) ours, bf16", found, found),
        f"| ratio to (a) | {found['student_step_ratio']:.2f}× | {found['generator_step_ratio']:.2f}× "
        f"| {found['images_per_s_ratio']:.2f}× | {found['peak_memory_ratio']:.2f}× | | |",
    ]


def _row(name: str, summary: dict[str, Any], fractions: dict[str, float]) -> str:
    shares = (fractions.get(f"fraction_of_{kind}_matmul") for kind in ("fp32", "bf16"))
    return (
        f"| {name} {_cells(summary)}" + "".join("| " if share is None else f"| {share:.0%} " for share in shares) + "|"
    )


def _cells(summary: dict[str, Any]) -> str:
    return (
        f"| {summary['student_wall_s']:.3f} s | {summary['generator_wall_s']:.3f} s | {summary['images_per_s']:.2f} "
        f"| {summary['peak_memory_bytes'] / 2**30:.2f} GiB "
    )


def put_into(file: Path, name: str, text: str) -> None:
    """Replace what is between `<!-- begin NAME -->` and `<!-- end NAME -->` in a Markdown file by `text`."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, found, rest = file.read_text(encoding="utf-8").partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"{file} has no place for this table: it needs the lines '{begin}' and '{end}'.")
    write_text(file, f"{before}{begin}\n{text}{end}{rest.split(end, 1)[1]}")
