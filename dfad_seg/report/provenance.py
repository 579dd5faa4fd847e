"""Where a run's result comes from, and whether its records show that no real image was read for training."""

from __future__ import annotations

from typing import Any

from dfad_seg.report.files import RunFiles

DATA_FREE = ("dfad", "random_noise")


def claim(files: RunFiles) -> tuple[bool | None, str]:
    """Whether no real image was read for training, and a sentence that says what this rests on.

    Three records must agree: the method in config.yaml, the list of uses in provenance.json, and its summary. None
    where there is no such record, and then nothing is claimed.
    """
    record = files.provenance
    uses = None if record is None else record.get("real_images")
    if record is None or not isinstance(uses, list) or "real_images_used_for_training" not in record:
        return None, "There is no provenance record, so nothing can be said about the images that were read."
    purposes = [str(use.get("purpose")) if isinstance(use, dict) else "unknown" for use in uses]
    methods = {files.config["method"], record.get("method")}
    if record["real_images_used_for_training"] is False and set(purposes) <= {"evaluation"}:
        if methods <= set(DATA_FREE):
            rest = "None was read at all."
            if purposes:
                rest = f"Real images were read for evaluation only: {_uses(uses)}."
            began = record.get("trained_from")
            weights = [value for key, value in began.items() if "sha256" not in key] if isinstance(began, dict) else []
            if weights:
                rest += f" The student began with weights from elsewhere: {', '.join(map(str, weights))}."
            return True, f"No real image was read for training. {rest}"
        return False, (
            "The records contradict each other: provenance.json names no real training image, and the method "
            f"{' / '.join(sorted(map(str, methods)))} trains on real images."
        )
    if "training" in purposes:
        real = [use for use, purpose in zip(uses, purposes, strict=True) if purpose == "training"]
        return False, f"Real images were read for training: {_uses(real)}."
    return False, "The provenance record contradicts itself about real training images; do not rely on it."


def provenance_rows(files: RunFiles) -> list[tuple[str, str]]:
    """(what, value) for the provenance section."""
    record = files.provenance or {}
    teacher = record.get("teacher") if isinstance(record.get("teacher"), dict) else {}
    assert isinstance(teacher, dict)
    packages = record.get("packages") if isinstance(record.get("packages"), dict) else {}
    assert isinstance(packages, dict)
    rows: list[tuple[str, Any]] = [
        ("command", record.get("command")),
        ("started", record.get("started")),
        ("seed", record.get("seed")),
        ("teacher", teacher.get("checkpoint")),
        ("teacher, SHA-256 of the file", teacher.get("file_sha256")),
        ("teacher, SHA-256 of the weights", teacher.get("state_sha256")),
        ("device", record.get("device")),
        ("processes", record.get("processes")),
        ("precision", record.get("precision")),
        ("code", record.get("git_commit")),
        ("dfad_seg", record.get("dfad_seg")),
        ("Python", record.get("python")),
        ("packages", ", ".join(f"{name} {version}" for name, version in packages.items() if version)),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def _uses(uses: list[Any]) -> str:
    known = [use if isinstance(use, dict) else {} for use in uses]
    return "; ".join(f"{use.get('dataset', 'images')}, {use.get('split', 'unknown')} split" for use in known)
