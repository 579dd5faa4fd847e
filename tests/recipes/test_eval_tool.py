"""tools/eval_miou.py against numpy on the same predictions, for every kind of checkpoint."""

import json

import cv2
import numpy as np
import pytest
import torch
from conftest_pipeline import call_tool

from dfad_seg import evaluate, load_config
from dfad_seg.datasets import build_dataset
from dfad_seg.recipes.sources import load_role
from dfad_seg.segmentors import load_segmentor, read_segmentor_file


def reference(world, split="test"):
    """IoU per class by hand: one image at a time, a histogram over the whole split."""
    network = load_segmentor(world.teacher)
    counts = np.zeros((11, 11), dtype=np.int64)
    for sample in build_dataset("street_scenes", world.data, split):
        with torch.no_grad():
            prediction = network(sample["image"][None]).argmax(1)[0].numpy()
        truth = sample["mask"].numpy()
        for t, p in zip(truth[truth != 255], prediction[truth != 255], strict=True):
            counts[t, p] += 1
    union = counts.sum(0) + counts.sum(1) - np.diag(counts)
    return np.where(union > 0, np.diag(counts) / np.maximum(union, 1), np.nan), np.diag(counts).sum() / counts.sum()


def test_numbers_files_and_pictures(world, tmp_path, capsys):
    out, show = tmp_path / "m.json", tmp_path / "pictures"
    arguments = ("--split", "test", "--out", out, "--show-dir", show, "--batch-size", 2)
    assert call_tool("eval", world.paths["supervised"], world.teacher, *arguments) == 0
    metrics = json.loads(out.read_text())
    iou, accuracy = reference(world)
    expected = [None if np.isnan(v) else pytest.approx(v) for v in iou]
    assert metrics["IoU"] == expected
    assert metrics["mIoU"] == pytest.approx(np.nanmean(iou)) and metrics["aAcc"] == pytest.approx(accuracy)
    assert metrics["role"] == "teacher" and metrics["split"] == "test" and len(metrics["checkpoint_sha256"]) == 64
    printed = capsys.readouterr().out
    assert f"mIoU: {100 * np.nanmean(iou):.2f}" in printed and "bicyclist" in printed
    pictures = sorted(show.glob("*.png"))
    assert len(pictures) == 3 and all(cv2.imread(str(p)) is not None for p in pictures)


def test_every_kind_of_checkpoint_gives_the_same_numbers(world, tmp_path):
    state = read_segmentor_file(world.teacher)["state_dict"]
    torch.save(state, tmp_path / "bare.pt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "wrapped.pth")
    results = []
    for path in (world.teacher, tmp_path / "bare.pt", tmp_path / "wrapped.pth"):
        assert call_tool("eval", world.paths["supervised"], path, "--out", tmp_path / "m.json") == 0
        results.append(json.loads((tmp_path / "m.json").read_text())["IoU"])
    assert results[0] == results[1] == results[2]
    # A distillation config finds its teacher with --role.
    assert call_tool("eval", world.paths["dfad"], world.teacher, "--role", "teacher", "--out", tmp_path / "m.json") == 0
    assert json.loads((tmp_path / "m.json").read_text())["IoU"] == results[0]


def test_as_functions(world):
    config = load_config(world.paths["supervised"])
    metrics = evaluate(config, load_role(config, "teacher", world.teacher), split="test")
    assert metrics.mIoU == pytest.approx(np.nanmean(reference(world)[0]))


def test_evaluation_at_another_size(world, tmp_path):
    arguments = ("--cfg-options", "evaluation.short_side=16", "--out", tmp_path / "m.json")
    assert call_tool("eval", world.paths["supervised"], world.teacher, *arguments) == 0
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["short_side"] == 16 and sum(metrics["support"]) <= 3 * 16 * 24
