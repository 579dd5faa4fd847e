"""`dfad-seg eval` against numpy on the same predictions: checkpoints, stored predictions, modes, several models."""

import csv
import json
import shutil
import sys

import cv2
import numpy as np
import pytest
import torch
from shared import STUDENT, call_tool, experiment, write_yaml

from dfad_seg import evaluate, load_config
from dfad_seg.datasets import StreetScenes, build_dataset
from dfad_seg.recipes.sources import load_role, role_of
from dfad_seg.runs import Run
from dfad_seg.segmentors import build_segmentor, load_segmentor, save_segmentor

NUMBERS = ("aAcc", "mIoU", "mAcc", "mDice", "fwIoU", "IoU", "Acc", "Dice", "support")


@pytest.fixture(scope="module")
def stored(world, tmp_path_factory):
    """The teacher's predictions on the test split, as PNGs and as COCO results, its metrics, and pictures."""
    folder = tmp_path_factory.mktemp("stored")
    outputs = ("--save-predictions", folder / "png", "--save-coco", folder / "r.json", "--show-dir", folder / "show")
    arguments = (world.paths["supervised"], world.teacher, "--split", "test", *outputs, "--out", folder / "m.json")
    assert call_tool("eval", *arguments) == 0
    return folder, json.loads((folder / "m.json").read_text())


def placed(world):
    return ("--dataset", "street_scenes", "--dataset-root", world.data, "--split", "test")


def scored(tmp_path, *arguments):
    """The record of an evaluation."""
    assert call_tool("eval", *arguments, "--out", tmp_path / "m.json") == 0
    return json.loads((tmp_path / "m.json").read_text())


def by_hand(world, split, labels_of):
    """IoU of each class and pixel accuracy, with one histogram over the whole split."""
    counts = np.zeros((11, 11), dtype=np.int64)
    for sample in build_dataset("street_scenes", world.data, split):
        prediction, truth = labels_of(sample["image"][None]), sample["mask"].numpy()
        np.add.at(counts, (truth[truth != 255], prediction[truth != 255]), 1)
    union = counts.sum(0) + counts.sum(1) - np.diag(counts)
    return np.where(union > 0, np.diag(counts) / np.maximum(union, 1), np.nan), np.diag(counts).sum() / counts.sum()


def test_numbers_are_those_of_numpy_and_pictures_are_there(world, stored):
    network, record = load_segmentor(world.teacher).eval(), stored[1]
    with torch.no_grad():
        iou, accuracy = by_hand(world, "test", lambda image: network(image).argmax(1)[0].numpy())
    assert record["IoU"] == [None if np.isnan(value) else pytest.approx(value) for value in iou]
    assert record["mIoU"] == pytest.approx(np.nanmean(iou)) and record["aAcc"] == pytest.approx(accuracy)
    assert record["role"] == "teacher" and record["split"] == "test" and len(record["checkpoint_sha256"]) == 64
    pictures = list((stored[0] / "show").glob("*.png"))
    assert len(pictures) == 3 and all(cv2.imread(str(path)) is not None for path in pictures)
    # From Python, with the same numbers, from a config or from a data set.
    config = load_config(world.paths["supervised"])
    result = evaluate(config, load_role(config, "teacher", world.teacher), split="test", resamples=20, boundary=True)
    assert result.mIoU == record["mIoU"] and "boundary IoU" in result.by_class and "mIoU" in result.intervals
    dataset = build_dataset("street_scenes", world.data, "test")
    assert evaluate(dataset, network, precision="fp32", batch_size=2).metrics == result.metrics


def test_stored_predictions_give_the_same_counts_without_any_network(world, stored, tmp_path, monkeypatch):
    folder, expected = stored

    def refuse(*_, **__):
        raise AssertionError("a network was built or loaded")

    for name in ("dfad_seg.recipes.sources.build_network", "dfad_seg.recipes.sources.read_tensors", "torch.load"):
        monkeypatch.setattr(name, refuse)
    for name, given in (("png", placed(world)), ("r.json", placed(world)), ("png", (world.paths["dfad"],))):
        split = () if given[0] == "--dataset" else ("--split", "test")
        record = scored(tmp_path, *given, *split, "--predictions", folder / name, "--batch-size", 2)
        assert {key: record[key] for key in NUMBERS} == {key: expected[key] for key in NUMBERS}
        assert record["predictions"] == str(folder / name) and "checkpoint" not in record
    with pytest.raises(AssertionError, match="a network was built"):
        call_tool("eval", world.paths["supervised"], world.teacher)


def test_extra_predictions_are_named(world, stored, tmp_path, capsys):
    folder = shutil.copytree(stored[0] / "png", tmp_path / "png")
    shutil.copy(sorted(folder.iterdir())[0], folder / "stranger.png")
    assert call_tool("eval", *placed(world), "--predictions", folder) == 0
    assert "warning: " in (error := capsys.readouterr().err) and "left out: stranger" in error


def test_all_metrics_at_once(world, stored, tmp_path, capsys):
    more = ("--ci", 30, "--boundary-iou", "--ece", "--teacher", world.teacher.parent, "--subset", "road, sky")
    record = scored(tmp_path, world.teacher.parent, "--split", "test", *more, "--out", tmp_path / "m.csv")
    assert record["mIoU"] == stored[1]["mIoU"] and record["agreement"] == 1.0
    assert 0 <= record["boundary_mIoU"] <= 1 and 0 < record["ECE"] < 1
    with open(tmp_path / "m.csv", newline="", encoding="utf-8") as file:
        rows = {(row["metric"], row["class"]): row["value"] for row in csv.DictReader(file)}
    assert float(rows["subset mIoU", ""]) == record["subset_mIoU"] and float(rows["ECE", ""]) == record["ECE"]
    iou = dict(zip(record["classes"], record["IoU"], strict=True))
    assert record["subset_mIoU"] == pytest.approx((iou["road"] + iou["sky"]) / 2)
    assert record["subset_mIoU_interval"]["resamples"] == 30
    assert record["mIoU_interval"]["resamples"] == 30 and record["mIoU_interval"]["low"] <= record["mIoU"]
    assert "agreement" in capsys.readouterr().out
    # Stored predictions can have a teacher too, stored or not.
    for teacher in (stored[0] / "r.json", world.teacher):
        given = (*placed(world), "--predictions", stored[0] / "png", "--teacher", teacher)
        assert scored(tmp_path, *given)["agreement"] == 1.0


def test_modes_from_flags_and_config(world, tmp_path):
    flags = ("--crop", 24, 32, "--stride", 16, 16, "--scales", 0.5, 1, "--flip")
    keys = ["crop_size=[24,32]", "crop_stride=[16,16]", "scales=[0.5,1]", "flip=true"]
    from_config = ("--cfg-options", *(f"evaluation.{key}" for key in keys))
    records = [scored(tmp_path, world.paths["supervised"], world.teacher, *given) for given in (flags, from_config)]
    for record in records:
        assert record["inference"] == {
            "crop_size": [24, 32], "crop_stride": [16, 16], "scales": [0.5, 1.0], "flip": True, "precision": "fp32"
        }  # fmt: skip
    assert records[0]["IoU"] == records[1]["IoU"]


def test_training_evaluates_by_the_same_keys_and_a_run_is_compared_with_its_teacher(world, tmp_path, capsys):
    section = {"split": "val", "num_workers": 0, "crop_size": [24, 32], "flip": True, "precision": "fp32"}
    run = tmp_path / "run"
    values = experiment("random_noise", world.data, student=STUDENT, teacher=world.configs["dfad"]["teacher"])
    config = write_yaml(tmp_path / "c.yaml", values | {"evaluation": section, "iterations": 1, "report": "short"})
    assert call_tool("train", config, "--work-dir", run) == 0
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    alone = scored(tmp_path, run)
    assert alone["mIoU"] == pytest.approx(last["val/mIoU"], abs=1e-6)
    record = scored(tmp_path, "--compare", run, "teacher", "--ci", 9)
    assert list(record["models"]) == ["run", "teacher"] and record["models"]["run"]["IoU"] == alone["IoU"]
    assert record["sources"]["teacher"]["checkpoint"] == str(world.teacher)
    assert record["models"]["teacher"]["mIoU"] == scored(tmp_path, run, world.teacher, "--role", "teacher")["mIoU"]
    assert record["models"]["teacher"]["mIoU"] == scored(tmp_path, run, "--role", "teacher")["mIoU"]
    assert record["models"]["run"]["mIoU"] == scored(tmp_path, run, "--role", "student")["mIoU"]
    noted = scored(tmp_path, run, "--role", "teacher", "--split", "train")  # where compare finds it
    assert Run(run).score("teacher", split="train").mIoU == pytest.approx(noted["mIoU"])
    assert scored(tmp_path, run, "--cfg-options", "evaluation.short_side=24")["mIoU"] != alone["mIoU"]
    assert Run(run).score("student").mIoU == pytest.approx(alone["mIoU"])  # another way is not the run's score
    code = call_tool("eval", "--compare", world.teacher.parent, "teacher")
    assert code == 2 and "teacher: it has no checkpoint" in capsys.readouterr().err  # the run trained it
    (loop := tmp_path / "loop").symlink_to(loop)
    assert [role_of(load_config(config), file) for file in (world.teacher, loop)] == ["teacher", "student"]


def test_several_models_side_by_side(world, stored, tmp_path, capsys):
    other = build_segmentor(num_classes=11, **STUDENT)
    save_segmentor(tmp_path / "other.pt", other, classes=StreetScenes.metainfo.classes)
    models = (world.teacher.parent, f"again={stored[0] / 'png'}", stored[0] / "r.json", tmp_path / "other.pt")
    record = scored(tmp_path, "--compare", *models, "--split", "test", "--ci", 40, "--subset", "road,sky")
    assert list(record["models"]) == ["teacher_run", "again", "r", "other"]
    for name in ("again", "r"):
        difference = record["models"][name]["difference"]
        assert (difference["value"], difference["p_value"]) == (0, 1)
    gap = record["models"]["other"]["difference"]
    first, last = (record["models"][name]["subset_mIoU"] for name in ("teacher_run", "other"))
    assert gap["value"] == pytest.approx(last - first, abs=1e-12)
    assert gap["interval"]["resamples"] == 40 and "paired bootstrap" in capsys.readouterr().out


def test_a_terminal_that_is_full_never_costs_a_result(world, stored, tmp_path, monkeypatch):
    arguments = (*placed(world), "--ci", 20, "--predictions", stored[0] / "png", "--out", tmp_path / "m.json")
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, open("/dev/full", "w", encoding="utf-8"))
    assert call_tool("eval", *arguments) == 2
    assert json.loads((tmp_path / "m.json").read_text())["mIoU"] == stored[1]["mIoU"]
