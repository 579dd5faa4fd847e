"""Run directories made by hand."""

import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

CLASSES = ["road", "<script>alert(1)</script>", "a|b *c*"]
PROVENANCE = {
    "command": "python tools/train_seg.py <b>x</b>.yaml",
    "method": "dfad",
    "seed": 0,
    "teacher": {"checkpoint": "t.pt", "file_sha256": "ab", "state_sha256": "cd", "parameters": 8000},
    "trained_parameters": 2000,
    "real_images": [{"purpose": "evaluation", "split": "val", "dataset": "folders", "root": "data"}],
    "real_images_used_for_training": False,
    "packages": {"torch": "2"},
}
CONFIG = {
    "method": "dfad",
    "teacher": {"source": "smp", "arch": "FPN", "encoder_name": "resnet50"},
    "student": {"source": "smp", "arch": "FPN"},
    "evaluation": {"split": "val"},
    "iterations": 40,
}


def evaluation(step, student):
    """The log line of an evaluation with these IoU values."""
    record = {"step": step, "elapsed_s": 3.0 * step, "val/mIoU": sum(student) / 3, "val/mAcc": 0.5, "val/aAcc": 0.75}
    return record | {f"val/IoU/{name}": iou for name, iou in zip(CLASSES, student, strict=True)}


def training(step, **changes):
    """A log line of training."""
    values = {"student_loss": 1 / step, "generator_loss": -0.1, "student_agreement": 0.5, "student_class_entropy": 0.9}
    values |= {"student_lr": 0.1 ** (1 + step / 20)}
    return {"step": step, "elapsed_s": 3.0 * step} | {f"train/{k}": v for k, v in (values | changes).items()}


def make_run(path: Path, *, records=None, provenance=PROVENANCE, config=CONFIG, data=None, finished=True) -> Path:
    """A run directory with two grids of generated images and, with `data`, its report.json and example."""
    path.mkdir()
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    if provenance is not None:
        (path / "provenance.json").write_text(json.dumps(provenance))
    if records is None:
        records = [training(step) for step in range(2, 41, 2)]
        records += [evaluation(20, (0.3, 0.2, 0.1)), evaluation(40, (0.6, 0.3, 0.0))]
    lines = [json.dumps(record) + "\n" for record in records]
    (path / "metrics.jsonl").write_text("".join(lines) + '{"step": 41, "cut o')
    for name in ("generated_00000020", "generated_00000040", "examples/01_worst"):
        file = path / "pictures" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 60, 3), 120, np.uint8)).save(file)
    if data is None:
        metrics = {"classes": CLASSES, "IoU": [0.8, 0.6, None], "mIoU": 0.7, "mAcc": 0.8, "aAcc": 0.9}
        data = {
            "size": [48, 64],
            "device": "some CPU",
            "networks": {
                "teacher": {"name": "FPN resnet50", "parameters": 8000, "macs": 4_000_000_000, "latency_s": 0.2},
                "student": {"name": "FPN tiny", "parameters": 2000, "macs": 500_000_000, "latency_s": 0.05},
            },
            "teacher_scores": {"metrics": metrics},
            "examples": [
                {"kind": "worst", "name": "<i>img</i>", "miou": 0.1, "file": "pictures/examples/01_worst.png"},
                {"kind": "best", "name": "outside", "miou": 0.9, "file": "../../etc/passwd"},
            ],
        }
    (path / "report.json").write_text(json.dumps(data))
    if finished:
        (path / "student.pt").write_bytes(b"")
    return path
