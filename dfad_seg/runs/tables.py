"""The tables of a report, and the few numbers above them."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dfad_seg.runs.records import Score, Summary


class Table(NamedTuple):
    """Rows of text under heads, each with the width of a bar behind its last cell in per cent, or None."""

    heads: Sequence[str]
    rows: Sequence[tuple[Sequence[str], float | None]]
    words: int
    note: str


BOTH = {"mIoU": "mIoU", "mIoU of the best constant prediction": "constant"}
"""Rows below the classes, and the attribute of a score that they show."""


def headline(summary: Summary | None, trained: Score | None, teacher: Score | None) -> list[tuple[str, str]]:
    """The few numbers that one looks for first: (what, value); without labels, what can be said without them."""
    found = []
    if summary and not trained:
        guess = summary.estimate
        if guess and guess.kept is not None:
            about = f"{percent(guess.kept, 0)} ({percent(guess.low, 0)} to {percent(guess.high, 0)})"
            found.append(("of the teacher's mIoU: an estimate without labels", about))
        found += [(f"agreement (mIoU), {score.split} images", percent(score.mIoU)) for score in summary.agreement]
    scores = [score for score in (trained, teacher) if score]
    found += [(f"mIoU of the {score.network} ({score.split})", percent(score.mIoU)) for score in scores]
    if trained and teacher and teacher.mIoU:
        found.append(("of the teacher's mIoU", percent(trained.mIoU / teacher.mIoU)))
        if teacher.constant is not None and teacher.mIoU > teacher.constant:
            above = (trained.mIoU - teacher.constant) / (teacher.mIoU - teacher.constant)
            found.append(("recovered above the best constant prediction", percent(above)))
    costs = summary.costs if summary else {}
    if len(costs) == 2:
        for what, key in (("fewer parameters", "parameters"), ("fewer MACs", "macs"), ("faster here", "latency_s")):
            ours, theirs = (getattr(costs[role], key) for role in ("student", "teacher"))
            unsure = max(cost.scatter or 0 for cost in costs.values()) if key == "latency_s" else 0
            if ours and theirs and abs(math.log(theirs / ours)) > math.log1p(unsure):
                found.append((what, _ratio(theirs, ours)))
    return found


def network_table(summary: Summary | None) -> Table | None:
    """What was distilled into what, and what each costs; None where nothing is known."""
    if summary is None or not summary.costs:
        return None
    costs, rows = summary.costs, []
    for name in sorted(costs, reverse=True):  # the teacher first
        cost = costs[name]
        macs = "–" if cost.macs is None else f"{cost.macs / 1e9:.3f}"
        slower = f" (+{cost.scatter:.0%})" if cost.scatter and cost.scatter > 0.25 else ""
        latency = "–" if cost.latency_s is None else f"{1000 * cost.latency_s:.1f}{slower}"
        rows.append(([name, cost.name or "–", f"{cost.parameters:,}", macs, latency], None))
    if len(costs) == 2:
        keys = ("parameters", "macs", "latency_s")
        ratios = [_ratio(getattr(costs["teacher"], key), getattr(costs["student"], key)) for key in keys]
        rows.append((["teacher / student", "", *ratios], None))
    size = "" if summary.size is None else f" of {summary.size[0]}×{summary.size[1]}"
    note = f"One image{size}, forward."
    if any(cost.latency_s is not None for cost in costs.values()):
        note += f" Latency: fp32, the fastest of several passes on {summary.device or 'this machine'}"
        note += ", and by how much the median was slower." if any("(+" in row[-1] for row, _ in rows) else "."
    return Table(["network", "architecture", "parameters", "GMACs", "latency, ms"], rows, 2, note)


def agreement_table(summary: Summary | None) -> Table | None:
    """How far the student predicts what its teacher does, by class, with what costs no student at all."""
    scores = summary.agreement if summary else ()
    if not summary or not scores:
        return None
    totals = BOTH | {"mIoU of random predictions": "by_chance", "same class, of all pixels": "aAcc"}
    rows = [([name, *(percent(value, 2) for value in values)], None) for name, values in _by_class(scores, totals)]
    note = "Per cent, with the teacher's predictions as the truth, on images that no training step had. "
    guess = summary.estimate
    if guess is not None and guess.kept is None:
        note += f"No estimate of the share of the teacher's mIoU is given: {guess.reason}."
    elif guess is not None:
        note += (
            f"Estimated share of the teacher's mIoU: {percent(guess.kept, 0)}, {percent(guess.low, 0)} to"
            f" {percent(guess.high, 0)}. It is no measurement: labelled images can say otherwise."
        )
    return Table(["class", *(score.split for score in scores)], rows, 1, note)


def class_table(trained: Score | None, teacher: Score | None, others: Mapping[str, Score | None]) -> Table | None:
    """IoU of each class: the teacher, the kept weights, others of the trained network by name, the share."""
    columns: dict[str, Score] = {"teacher": teacher} if teacher else {}
    if trained:
        columns[f"{trained.network}, averaged" if others.get("last weights") else trained.network] = trained
    columns |= {f"{score.network}, {name}": score for name, score in others.items() if score}
    if not columns:
        return None
    share = trained is not None and teacher is not None  # in the first two columns
    rows = []
    for name, values in _by_class([*columns.values()], BOTH | {"mAcc": "mAcc", "aAcc": "aAcc"}):
        cells, bar = [name, *(percent(value, 2) for value in values)], values[0]
        if share:
            theirs, ours = values[:2] if not name.startswith("mIoU of") else (None, None)  # nothing is a share of those
            bar = ours / theirs if ours is not None and theirs else None
            cells.append(percent(bar))
        rows.append((cells, None if bar is None else round(100 * min(1.0, bar), 1)))
    split = next(iter(columns.values())).split
    note = f"Per cent, on the {split} split." + (" Share: student / teacher." if share else "")
    return Table(["class", *columns, *(["share"] if share else [])], rows, 1, note)


def _by_class(scores: Sequence[Score], totals: Mapping[str, str]) -> list[tuple[str, list[float | None]]]:
    """The IoU of each class of the first score, in all of them, and then other numbers of theirs."""
    by_name = [dict(zip(score.classes, score.IoU, strict=True)) for score in scores]
    rows = [(name, [ious.get(name) for ious in by_name]) for name in scores[0].classes]
    return rows + [(name, [getattr(score, key) for score in scores]) for name, key in totals.items()]


def _ratio(a: float | None, b: float | None) -> str:
    return f"{a / b:.1f}×" if a and b else "–"


def percent(value: float | None, digits: int = 1) -> str:
    """A share in per cent, for people; two digits are for tables that say the unit."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.{digits}f}" + ("" if digits == 2 else " %")
