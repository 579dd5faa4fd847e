"""The two tables of a report, and its headline numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dfad_seg.report.files import RunFiles
from dfad_seg.report.parts import Table

ROLES = ("teacher", "student")


def trained_role(files: RunFiles) -> str:
    """Which network the run trains."""
    supervised = files.config["method"] == "supervised"
    return "teacher" if supervised and not files.config.get("student") else "student"


def evaluation_split(files: RunFiles) -> str | None:
    """The split that the run evaluates on, if it does."""
    section = files.config.get("evaluation")
    return str(section.get("split", "val")) if isinstance(section, dict) else None


def headline(files: RunFiles) -> list[tuple[str, str]]:
    """The few numbers that one looks for first."""
    found = []
    teacher, trained = _teacher_scores(files), _trained_scores(files)
    split, role = evaluation_split(files), trained_role(files)
    if trained is not None:
        found.append((f"mIoU of the {role} ({split})", _percent(trained["mIoU"], digits=1)))
    if teacher is not None:
        found.append((f"mIoU of the teacher ({split})", _percent(teacher["mIoU"], digits=1)))
        if trained is not None and teacher["mIoU"]:
            found.append(("recovered", _percent(trained["mIoU"] / teacher["mIoU"], digits=1)))
    costs = _costs(files)
    if all(_number(costs[name].get("parameters")) for name in ROLES):
        found.append(("fewer parameters", _ratio(costs["teacher"]["parameters"], costs["student"]["parameters"])))
    if all(_number(costs[name].get("latency_s")) for name in ROLES):
        found.append(("faster on this machine", _ratio(costs["teacher"]["latency_s"], costs["student"]["latency_s"])))
    return found


def network_table(files: RunFiles) -> Table | None:
    """What was distilled into what, and what each costs; None where nothing is known."""
    costs = _costs(files)
    rows = [
        [
            name,
            str(cost.get("name") or _section_name(files, name)),
            f"{cost['parameters']:,}" if _number(cost.get("parameters")) else "–",
            f"{cost['macs'] / 1e9:.3f}" if _number(cost.get("macs")) else "–",
            f"{2 * cost['macs'] / 1e9:.3f}" if _number(cost.get("macs")) else "–",
            f"{1000 * cost['latency_s']:.1f}" if _number(cost.get("latency_s")) else "–",
        ]
        for name, cost in costs.items()
        if cost
    ]
    if not rows:
        return None
    if all(costs[name] for name in ROLES):
        ratios = [
            _ratio(costs["teacher"][key], costs["student"][key])
            if all(_number(costs[name].get(key)) for name in ROLES)
            else "–"
            for key in ("parameters", "macs", "macs", "latency_s")
        ]
        rows.append(["teacher / student", "", *ratios])
    size = files.data.get("size")
    where = f"One image of {size[0]}×{size[1]}" if isinstance(size, list) and len(size) == 2 else "One image"
    note = f"{where}, forward, fp32; one MAC is two FLOPs."
    if any("latency_s" in cost for cost in costs.values()):
        runs = max(int(cost.get("latency_runs", 0)) for cost in costs.values())
        note += f" Latency: median of up to {runs} passes on {files.data.get('device', 'this machine')}."
    return Table(["network", "architecture", "parameters", "GMACs", "GFLOPs", "latency, ms"], rows, note=note, words=2)


def class_table(files: RunFiles) -> Table | None:
    """IoU of each class, teacher and student, and the share recovered; None where nothing was evaluated."""
    teacher, trained = _teacher_scores(files), _trained_scores(files)
    if teacher is None and trained is None:
        return None
    role, split = trained_role(files), evaluation_split(files)
    names = list((trained or teacher or {})["IoU"])
    both = teacher is not None and trained is not None
    headers = ["class", *(["teacher"] if teacher is not None else []), *([role] if trained is not None else [])]
    headers += ["recovered"] if both else []
    rows, bars = [], []

    def add(name: str, ours: float | None, theirs: float | None) -> None:
        row = [name, *([_percent(theirs)] if teacher is not None else [])]
        row += [_percent(ours)] if trained is not None else []
        share = ours / theirs if both and ours is not None and theirs else None
        rows.append([*row, *([_percent(share, digits=1)] if both else [])])
        bars.append(share if both else ours if trained is not None else theirs)

    ours, theirs = trained or {"IoU": {}}, teacher or {"IoU": {}}
    for name in names:
        add(name, ours["IoU"].get(name), theirs["IoU"].get(name))
    for total in ("mIoU", "mAcc", "aAcc"):
        add(total, ours.get(total), theirs.get(total))
    step = "" if trained is None else f" {role.capitalize()}: iteration {trained['step']:,}."
    return Table(
        headers, rows, bars=bars, note=f"Per cent, on the {split} split; recovered is student / teacher.{step}"
    )


def _costs(files: RunFiles) -> dict[str, dict[str, Any]]:
    """By role; from report.json, or at least the parameters that the provenance knows."""
    networks = files.data.get("networks")
    known = networks if isinstance(networks, dict) else {}
    costs = {name: dict(known[name]) if isinstance(known.get(name), dict) else {} for name in ROLES}
    record = files.provenance or {}
    teacher = record.get("teacher")
    if not costs["teacher"] and isinstance(teacher, dict) and _number(teacher.get("parameters")):
        costs["teacher"]["parameters"] = teacher["parameters"]
    if not costs[trained_role(files)] and _number(record.get("trained_parameters")):
        costs[trained_role(files)]["parameters"] = record["trained_parameters"]
    return costs


def _section_name(files: RunFiles, role: str) -> str:
    section = files.config.get(role)
    if not isinstance(section, dict):
        return "–"
    names = [section.get(key) for key in ("arch", "encoder_name", "factory")]
    return " ".join(str(name) for name in names if name) or str(section.get("source", "–"))


def _teacher_scores(files: RunFiles) -> dict[str, Any] | None:
    """{mIoU, mAcc, aAcc, IoU: by class} of the teacher, from report.json."""
    scores = files.data.get("teacher_scores")
    metrics = scores.get("metrics") if isinstance(scores, dict) else None
    if not isinstance(metrics, dict) or not isinstance(metrics.get("classes"), list):
        return None
    values = metrics.get("IoU")
    if not isinstance(values, list) or len(values) != len(metrics["classes"]) or not _number(metrics.get("mIoU")):
        return None
    totals: dict[str, Any] = {name: metrics.get(name) for name in ("mIoU", "mAcc", "aAcc")}
    return totals | {"IoU": {str(name): iou for name, iou in zip(metrics["classes"], values, strict=True)}}


def _trained_scores(files: RunFiles) -> dict[str, Any] | None:
    """The same of the trained network and the `step`, from its last evaluation."""
    split = evaluation_split(files)
    records = [record for record in files.records if _number(record.get(f"{split}/mIoU"))]
    if not records:
        return None
    last: Mapping[str, Any] = records[-1]
    prefix = f"{split}/IoU/"
    totals: dict[str, Any] = {name: last.get(f"{split}/{name}") for name in ("mIoU", "mAcc", "aAcc")}
    per_class = {key.removeprefix(prefix): value for key, value in last.items() if key.startswith(prefix)}
    return totals | {"step": last["step"], "IoU": per_class}


def _ratio(a: float, b: float) -> str:
    return f"{a / b:.1f}×" if b else "–"


def _percent(value: Any, digits: int = 2) -> str:
    """Two digits for tables whose note says the unit; one digit with the sign."""
    return f"{100 * value:.{digits}f}" + (" %" if digits == 1 else "") if _number(value) else "–"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
