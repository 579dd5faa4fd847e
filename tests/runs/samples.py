"""Run directories made by hand."""

import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

CLASSES = ["road", "<script>alert(1)</script>", "traffic sign, far away"]
CONFIG = {"method": "dfad", "seed": 0, "evaluation": {"split": "val"}, "iterations": 40}
PROVENANCE = {
    "command": "dfad-seg train <b>x</b>.yaml",
    "method": "dfad",
    "seed": 0,
    "started": "2026-01-01T00:00:00+00:00",
    "teacher": {"checkpoint": "t.pt", "file_sha256": "ab", "state_sha256": "cd", "parameters": 8000},
    "trained_parameters": 2000,
    "trained_steps": 80,
    "real_images": [{"purpose": "evaluation", "split": "val", "dataset": "folders", "root": "data"}],
    "real_images_used_for_training": False,
    "device": "some CPU",
    "precision": "32-true",
    "packages": {"torch": "2"},
}


def score(network="student", weights="last", split="val", iou=(0.6, 0.3, 0.0), support=(600, 300, 100), **changes):
    """A score by class, with the mean of it; accuracy is 1 where anything is right."""
    known = [value for value in iou if value is not None]
    values = {"network": network, "weights": weights, "split": split, "classes": CLASSES, "IoU": list(iou)}
    values |= {"mIoU": sum(known) / len(known), "mAcc": 0.5, "aAcc": 0.75, "support": list(support)}
    return values | {"Acc": [1.0 if value else 0.0 for value in iou]} | changes


SUMMARY = {
    "role": "student",
    "iterations": 40,
    "split": "val",
    "size": [48, 64],
    "device": "some CPU",
    "costs": {
        "teacher": {"name": "FPN resnet50", "parameters": 8000, "macs": 4 * 10**9, "latency_s": 0.2, "scatter": 0.1},
        "student": {"name": "FPN tiny", "parameters": 2000, "macs": 5 * 10**8, "latency_s": 0.05, "scatter": 0.5},
    },
    "scores": [score("teacher", iou=(0.8, 0.6, None)), score()],
    "examples": [
        {"kind": "worst", "name": "<i>img</i>", "miou": 0.1, "file": "pictures/examples/01_worst.png"},
        {"kind": "best", "name": "outside", "miou": 0.9, "file": "../../etc/passwd"},
    ],
}


def evaluation(step, iou):
    """The log line of an evaluation with these IoU values."""
    record = {"step": step, "elapsed_s": 3.0 * step, "val/mIoU": sum(iou) / 3, "val/mAcc": 0.5, "val/aAcc": 0.75}
    return record | {f"val/IoU/{name}": value for name, value in zip(CLASSES, iou, strict=True)}


def training(step, **changes):
    """A log line of training."""
    values = {"student_loss": 1 / step, "generator_loss": -0.1, "student_agreement": 0.5, "student_class_entropy": 0.9}
    values |= {"student_lr": 0.1 ** (1 + step / 20)}
    return {"step": step, "elapsed_s": 3.0 * step} | {f"train/{k}": v for k, v in (values | changes).items()}


def make_run(path: Path, *, records=None, config=None, provenance=None, summary=None, finished=True) -> Path:
    """A run directory with two pictures of generated images and an example; the mappings change single keys."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(CONFIG | (config or {})))
    (path / "provenance.json").write_text(json.dumps(PROVENANCE | (provenance or {})))
    (path / "summary.json").write_text(json.dumps(SUMMARY | (summary or {})))
    if records is None:
        records = [evaluation(20, (0.3, 0.2, 0.1)), evaluation(40, (0.6, 0.3, 0.0))]
    lines = [json.dumps(record) + "\n" for record in records]
    (path / "metrics.jsonl").write_text("".join(lines) + '{"step": 41, "cut o')
    for name in ("generated_00000020", "generated_00000040", "examples/01_worst"):
        file = path / "pictures" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 60, 3), 120, np.uint8)).save(file)
    if finished:
        (path / "student.pt").write_bytes(b"")
    return path
