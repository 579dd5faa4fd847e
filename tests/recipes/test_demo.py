"""The demo at a size of seconds: every stage, the table, the pictures, and that a second call only reads."""

import json

import cv2
import pytest

from dfad_seg.config import load_config
from dfad_seg.recipes import demo
from dfad_seg.recipes.provenance import trained_steps
from dfad_seg.runs import Run
from dfad_seg.segmentors import load_segmentor

TINY = ["batch_size=3", "iterations=2", "evaluation.batch_size=2", "evaluation.num_workers=0"]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "COUNTS", {"train": 4, "val": 2, "test": 3})
    quick = ["student.rehearsal=1", "student.images=4"]
    read = demo.load_config
    monkeypatch.setattr(demo, "load_config", lambda name, more: read(name, more + quick * name.endswith("cut_50")))


@pytest.mark.slow
def test_demo(small, tmp_path, capsys):
    demo.run_demo(tmp_path, cfg_options=TINY)
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert results.keys() == {"teacher", "cut student", "student", "random noise"}
    scored = Run(tmp_path / "student").score("student", split="test")
    assert list(scored.IoU) == results["student"]["IoU"]
    for word in ("bicyclist", "mIoU", "of its mIoU", "report.html"):
        assert word in printed
    pictures = [demo.Path(line.split(": ")[0].strip()) for line in printed.splitlines() if line.startswith("  /")]
    assert len(pictures) == 2 and all(p.exists() for p in pictures)
    assert all(cv2.imread(str(p)) is not None for p in tmp_path.rglob("*.png"))

    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "student").rglob("*") if p.is_file()}
    demo.run_demo(tmp_path, cfg_options=TINY)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "student").rglob("*") if p.is_file()} == before
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert "kept" in capsys.readouterr().out
    assert load_segmentor(tmp_path / "student" / "student.pt").num_classes == 11


def test_the_controls_train_as_long_as_the_student():
    student, noise, data = (
        load_config(f"street_scenes/{name}") for name in ("demo", "random_noise", "distill_with_data")
    )
    assert trained_steps(noise) == trained_steps(student) == trained_steps(data)
    same = "student teacher student_loss student_optimizer batch_size image_size clip_norm logit_adjustment"
    for key in same.split():
        assert getattr(noise, key) == getattr(student, key) == getattr(data, key), key
