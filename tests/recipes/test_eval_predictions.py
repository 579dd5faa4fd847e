"""eval_miou.py with stored predictions, other inference modes, more metrics, and several models."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest_pipeline import STUDENT, call_tool, tiny, write
from PIL import Image

from dfad_seg import load_config
from dfad_seg.datasets import StreetScenes, build_dataset
from dfad_seg.recipes import evaluate
from dfad_seg.recipes.sources import load_role
from dfad_seg.segmentors import build_segmentor, load_segmentor, save_segmentor


@pytest.fixture(scope="module")
def stored(world, tmp_path_factory):
    """The teacher's predictions on the test split, as PNGs and as COCO results, and its metrics."""
    folder = tmp_path_factory.mktemp("stored")
    arguments = ("--split", "test", "--save-predictions", folder / "png", "--save-coco", folder / "r.json")
    assert call_tool("eval", world.paths["supervised"], world.teacher, *arguments, "--out", folder / "m.json") == 0
    return folder, json.loads((folder / "m.json").read_text())


def placed(world):
    return ("--dataset", "street_scenes", "--dataset-root", world.data, "--split", "test")


NUMBERS = ("aAcc", "mIoU", "mAcc", "mDice", "fwIoU", "IoU", "Acc", "Dice", "support")


def test_the_round_trip_gives_the_same_counts(world, stored, tmp_path):
    folder, expected = stored
    assert len(list((folder / "png").glob("*.png"))) == 3
    for name, given in (("png", placed(world)), ("r.json", placed(world)), ("png", (world.paths["dfad"],))):
        extra = () if given[0] == "--dataset" else ("--split", "test")
        arguments = (*given, *extra, "--predictions", folder / name, "--out", tmp_path / "m.json", "--batch-size", 2)
        assert call_tool("eval", *arguments) == 0
        record = json.loads((tmp_path / "m.json").read_text())
        assert {key: record[key] for key in NUMBERS} == {key: expected[key] for key in NUMBERS}
        assert record["predictions"] == str(folder / name) and "checkpoint" not in record


def test_predictions_are_scored_without_any_network(world, stored, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a network was built or loaded")

    for name in ("dfad_seg.recipes.sources.build_network", "dfad_seg.recipes.sources.read_file", "torch.load"):
        monkeypatch.setattr(name, refuse)
    for name in ("png", "r.json"):
        assert call_tool("eval", *placed(world), "--predictions", stored[0] / name) == 0
    with pytest.raises(AssertionError, match="a network was built"):
        call_tool("eval", world.paths["supervised"], world.teacher)


def test_missing_extra_and_wrong_predictions(world, stored, tmp_path, capsys):
    folder = tmp_path / "png"
    shutil.copytree(stored[0] / "png", folder)
    first = sorted(folder.iterdir())[0]
    shutil.copy(first, folder / "stranger.png")
    assert call_tool("eval", *placed(world), "--predictions", folder) == 0
    assert "warning: " in (error := capsys.readouterr().err) and "left out: stranger" in error
    cases = {
        "no prediction for 1 of 3 images": first.unlink,
        "and 48x32 is needed": lambda: Image.new("P", (9, 9)).save(first),
        "holds the value 77": lambda: Image.new("L", (48, 32), 77).save(first),
        "has no class on 1536 pixels": lambda: Image.new("L", (48, 32), 255).save(first),
        "not a readable image": lambda: first.write_bytes(b"no picture"),
    }
    for message, spoil in cases.items():
        spoil()
        assert call_tool("eval", *placed(world), "--predictions", folder, "--out", tmp_path / "m.json") == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error
        assert not (tmp_path / "m.json").exists()


def test_the_truth_itself_is_a_perfect_prediction(world, tmp_path):
    """255 in a prediction is fine where the truth is ignored, as in label files."""
    data, folder = tmp_path / "data", tmp_path / "data" / "testannot"
    shutil.copytree(world.data, data)
    for file in folder.iterdir():
        labels = np.array(Image.open(file))
        labels[:5] = 11  # void in this layout
        Image.fromarray(labels).save(file)
        labels[:5] = 255
        (tmp_path / "png").mkdir(exist_ok=True)
        Image.fromarray(labels).save(tmp_path / "png" / file.name)
    given = ("--dataset", "camvid", "--dataset-root", data, "--split", "test", "--predictions", tmp_path / "png")
    assert call_tool("eval", *given, "--boundary-iou", "--out", tmp_path / "m.json") == 0
    record = json.loads((tmp_path / "m.json").read_text())
    assert (record["mIoU"], record["aAcc"], record["boundary_mIoU"]) == (1, 1, 1)
    assert sum(record["support"]) == 3 * 27 * 48


def test_all_metrics_at_once(world, stored, tmp_path, capsys):
    out = [tmp_path / "m.json", tmp_path / "m.csv"]
    more = ("--ci", 30, "--boundary-iou", "--ece", "--teacher", world.teacher.parent, "--subset", "road, sky")
    arguments = (world.teacher.parent, "--split", "test", *more, "--out", out[0], "--out", out[1])
    assert call_tool("eval", *arguments) == 0
    record = json.loads(out[0].read_text())
    assert record["mIoU"] == stored[1]["mIoU"] and record["agreement"] == 1.0
    assert 0 <= record["ECE"] <= 1 and 0 <= record["boundary_mIoU"] <= 1
    assert record["mIoU_interval"]["resamples"] == 30 and record["mIoU_interval"]["low"] <= record["mIoU"]
    place = [record["classes"].index(name) for name in ("road", "sky")]
    assert record["subset_mIoU"] == pytest.approx(np.mean([record["IoU"][i] for i in place]))
    assert "agreement" in capsys.readouterr().out and out[1].read_text().startswith("metric,class,value\nmIoU,,")
    # Stored predictions can have a teacher too, stored or not.
    for teacher in (stored[0] / "r.json", world.teacher):
        arguments = (*placed(world), "--predictions", stored[0] / "png", "--teacher", teacher, "--out", out[0])
        assert call_tool("eval", *arguments) == 0
        assert json.loads(out[0].read_text())["agreement"] == 1.0


def test_windows_scales_and_flips_from_flags_and_config(world, tmp_path):
    flags = ("--crop", 24, 32, "--stride", 16, 16, "--scales", 0.5, 1, "--flip")
    keys = ["crop_size=[24,32]", "crop_stride=[16,16]", "scales=[0.5,1]", "flip=true"]
    for given in (flags, ("--cfg-options", *(f"evaluation.{key}" for key in keys))):
        assert call_tool("eval", world.paths["supervised"], world.teacher, *given, "--out", tmp_path / "m.json") == 0
        record = json.loads((tmp_path / "m.json").read_text())
        assert record["inference"] == {
            "crop_size": [24, 32], "crop_stride": [16, 16], "scales": [0.5, 1.0], "flip": True, "precision": "fp32"
        }  # fmt: skip
        assert record["mIoU"] == pytest.approx(by_hand(world), abs=1e-6)


def by_hand(world):
    network, hits, union = load_segmentor(world.teacher).eval(), np.zeros(11), np.zeros(11)
    for sample in build_dataset("street_scenes", world.data, "val"):
        total = torch.zeros(11, 32, 48)
        for scale in (0.5, 1):
            for flip in (False, True):
                x = sample["image"][None]
                x = x if scale == 1 else torch.nn.functional.interpolate(x, scale_factor=scale, mode="bilinear")
                x = x.flip(-1) if flip else x
                h, w = x.shape[-2:]
                logits, count = torch.zeros(1, 11, h, w), torch.zeros(h, w)
                for top in (0, 8) if h == 32 else (0,):
                    for left in (0, 16) if w == 48 else (0,):
                        part = (..., slice(top, top + 24), slice(left, left + 32))
                        with torch.no_grad():
                            logits[part] += network(x[part])
                        count[part[1:]] += 1
                logits = (logits / count).flip(-1) if flip else logits / count
                if scale != 1:
                    logits = torch.nn.functional.interpolate(logits, (32, 48), mode="bilinear")
                total += logits[0].softmax(0)
        answer, truth = total.argmax(0).numpy(), sample["mask"].numpy()
        for label in range(11):
            t, p = truth == label, (answer == label) & (truth != 255)
            hits[label] += (t & p).sum()
            union[label] += (t | p).sum()
    return np.mean(hits[union > 0] / union[union > 0])


def test_training_evaluates_by_the_same_keys(world, tmp_path):
    section = {"split": "val", "num_workers": 0, "crop_size": [24, 32], "flip": True, "precision": "fp32"}
    run = tmp_path / "run"
    values = tiny("random_noise", world.data, student=STUDENT, teacher=world.configs["dfad"]["teacher"])
    config = write(tmp_path / "c.yaml", values | {"evaluation": section, "iterations": 1, "student_steps": 1})
    assert call_tool("train", config, "--work-dir", run) == 0
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert call_tool("eval", run, "--out", tmp_path / "m.json") == 0
    assert json.loads((tmp_path / "m.json").read_text())["mIoU"] == pytest.approx(last["val/mIoU"], abs=1e-6)
    bad = write(tmp_path / "bad.yaml", values | {"evaluation": section | {"crop_stride": [30, 30]}})
    assert call_tool("train", bad, "--work-dir", tmp_path / "none") == 2 and not (tmp_path / "none").exists()


def test_several_models_side_by_side(world, stored, tmp_path, capsys):
    other = build_segmentor(num_classes=11, **STUDENT)
    save_segmentor(tmp_path / "other.pt", other, classes=StreetScenes.metainfo.classes)
    out = tmp_path / "c.json"
    arguments = (world.teacher.parent, f"again={stored[0] / 'png'}", stored[0] / "r.json", tmp_path / "other.pt")
    assert call_tool("eval", "--compare", *arguments, "--split", "test", "--ci", 40, "--out", out) == 0
    record = json.loads(out.read_text())
    assert list(record["models"]) == ["teacher_run", "again", "r", "other"]
    for name in ("again", "r"):
        assert (
            record["models"][name]["difference"]["value"] == 0 and record["models"][name]["difference"]["p_value"] == 1
        )
    gap = record["models"]["other"]["difference"]
    assert gap["value"] == pytest.approx(record["models"]["other"]["mIoU"] - stored[1]["mIoU"], abs=1e-12)
    assert gap["interval"]["resamples"] == 40 and "paired bootstrap" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to score"),
        (("{config}",), "nothing to score"),
        (("{config}", "{teacher}", "--predictions", "x"), "do not go together"),
        (("--predictions", "x"), "nothing to score|no data set"),
        (("--compare", "x"), "at least two"),
        (("--compare", "x", "y"), "no data set"),
        (("--compare", "{teacher}", "{teacher}"), "alike"),
        (("--dataset", "street_scenes", "--predictions", "x"), "needs --dataset-root"),
        (("{config}", "--predictions", "{config}"), "holds no predictions"),
        (("{config}", "--predictions", "nowhere/"), "holds no predictions"),
        (("{config}", "{teacher}", "--subset", "raod"), "Did you mean 'road'"),
        (("{config}", "{teacher}", "--crop", "9", "9", "--stride", "10", "9"), "leave gaps"),
        (("{config}", "{teacher}", "--out", "x.txt"), ".json or .csv"),
        (("{config}", "{data}"), "no prediction for 3 of 3"),
    ],
)
def test_arguments_that_do_not_go_together(world, capsys, arguments, message):
    names = {"config": world.paths["supervised"], "teacher": world.teacher, "data": world.data}
    assert call_tool("eval", *(str(a).format(**names) for a in arguments)) == 2
    error = capsys.readouterr().err
    assert any(part in error for part in message.split("|")), error
    assert "Traceback" not in error


def test_calibration_needs_a_network(world, stored, capsys):
    assert call_tool("eval", *placed(world), "--predictions", stored[0] / "png", "--ece") == 2
    assert "needs probabilities" in capsys.readouterr().err


def test_from_python(world, stored):
    config = load_config(world.paths["supervised"])
    network = load_role(config, "teacher", world.teacher)
    result = evaluate(config, network, split="test", resamples=20, boundary=True)
    assert result.metrics.mIoU == stored[1]["mIoU"] and result.boundary_iou is not None and result.interval is not None
