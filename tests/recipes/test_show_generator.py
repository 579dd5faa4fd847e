"""tools/show_generator.py: its shares are those of the layouts and of the teacher's answers."""

import json
import re

import cv2
import numpy as np
import pytest
import torch
from conftest_pipeline import call_tool, write

from dfad_seg import load_segmentor
from dfad_seg.distill import batch_norm_mode
from dfad_seg.distill.seeds import iteration_rng
from dfad_seg.recipes.calibration import load_generator


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown")
    values = world.configs["dfad"] | {"generator": {"type": "layout", "width": 4}, "iterations": 1}
    path = write(folder / "layout.yaml", {k: v for k, v in values.items() if k not in ("evaluation", "preview_every")})
    assert call_tool("train_seg", path, "--work-dir", folder / "run") == 0
    return folder / "run"


def test_shares_by_hand(world, run, tmp_path, capsys):
    capsys.readouterr()
    assert call_tool("show_generator", run, "--out", tmp_path / "sheet.png", "--images", 12) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "sheet.json").read_text())
    assert found["images"] == 16 and found["size"] == [32, 48]  # whole batches
    _, generator = load_generator(run, 11)
    rng, asked, answered = iteration_rng(0, 0, 0, torch.device("cpu"), "preview"), [], []
    teacher = load_segmentor(world.teacher).eval()
    for _ in range(2):
        latents = generator.sample(8, (32, 48), rng)
        with torch.no_grad(), batch_norm_mode(generator, "batch"):
            answered.append(teacher(generator(latents)).argmax(dim=1).numpy())
        asked.append(latents.layout.numpy())
    asked, answered = np.concatenate(asked), np.concatenate(answered)
    assert found["seen"] == pytest.approx((asked == answered).mean())
    for label, values in enumerate(found["classes"].values()):
        assert values["layout"] == pytest.approx((asked == label).mean())
        assert values["answer"] == pytest.approx((answered == label).mean())
        assert values["seen"] == pytest.approx((answered[asked == label] == label).mean())
    assert re.search(rf"\| sky +\| +{100 * (asked == 0).mean():.2f} \|", printed)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[0] > 6 * 3 * 96  # three pictures per class, in two columns


def test_other_sizes_and_wrong_runs(world, run, tmp_path, capsys):
    assert call_tool("show_generator", run, "--images", 1, "--size", 24, 40, "--teacher", world.teacher) == 0
    assert json.loads((run / "pictures" / "generator.json").read_text())["size"] == [24, 40]
    assert call_tool("show_generator", world.teacher.parent) == 2
    assert "no trained generator" in capsys.readouterr().err
    assert call_tool("show_generator", run, "--out", tmp_path / "sheet.jpg") == 2
    assert "does not end in .png" in capsys.readouterr().err
    assert call_tool("show_generator", run, "--teacher", tmp_path / "none.pt") == 2
    assert not list(tmp_path.iterdir())
