"""A hospital's case from end to end: grey images of 12 bits in 16, masks of 0 and 255, a teacher with one sigmoid."""

import re

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from shared import call_tool, write_yaml

from dfad_seg import load_segmentor

MASK = {"in_channels": 1, "output": "sigmoid", "mean": [0.3], "std": [0.2]}
NETWORK = {"source": "smp", "arch": "Unet", "encoder_name": "resnet18", "encoder_depth": 3}
NETWORK |= {"decoder_channels": [16, 8, 8]}
DATA = {
    "type": "folders", "img_dir": "img/<split>", "ann_dir": "ann/<split>", "img_suffix": ".png",
    "img_range": [0, 4095], "classes": ["background", "lesion"], "label_map": {255: 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """Images with a bright disc each, and the trained teacher's bare weights."""
    root, rng = tmp_path_factory.mktemp("hospital"), np.random.default_rng(0)
    for index in range(10):
        folders = [root / name / ("train" if index < 6 else "test") for name in ("img", "ann")]
        rows, columns = np.mgrid[:48, :64]
        disc = np.hypot(rows - rng.uniform(12, 36), columns - rng.uniform(12, 52)) < rng.uniform(8, 12)
        image = (1200 + 900 * disc + rng.normal(0, 120, disc.shape)).clip(0, 4095).astype(np.uint16)
        for folder, pixels in zip(folders, (image, np.uint8(255 * disc)), strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{index}.png"), pixels)
    supervised = {
        "method": "supervised", "teacher": NETWORK | MASK, "dataset": DATA | {"root": str(root)}, "iterations": 30,
        "batch_size": 4, "image_size": [32, 48], "training_data": {"num_workers": 0, "color_jitter": 0.2},
        "student_optimizer": {"type": "adamw", "lr": 0.003}, "report": "short",
    }  # fmt: skip
    assert call_tool("train", write_yaml(root / "teacher.yaml", supervised), "--work-dir", root / "teacher") == 0
    torch.save(load_segmentor(root / "teacher" / "teacher.pt").network.state_dict(), root / "teacher.pth")
    return root


@pytest.mark.slow
def test_from_bare_weights_to_a_small_onnx_file(hospital, capsys):
    assert call_tool("inspect", hospital / "teacher.pth", "--out", hospital / "found.yaml") == 0
    teacher = yaml.safe_load((hospital / "found.yaml").read_text())["teacher"]
    assert teacher["in_channels"] == 1 and teacher["output"] == "sigmoid" and teacher["encoder_depth"] == 3
    config = {
        "method": "dfad", "teacher": teacher | MASK,
        "student": {"source": "cut", "macs": 0.6, "rehearsal": 4, "images": 8},
        "dataset": DATA | {"root": str(hospital)}, "generator": {"type": "layout", "width": 8, "scales": 2},
        "iterations": 4, "batch_size": 4, "image_size": [32, 48], "priors": {"batch_norm_prior": 1.0},
        "student_optimizer": {"type": "adamw", "lr": 0.001}, "evaluation": {"split": "test", "num_workers": 0},
    }  # fmt: skip
    path, run = write_yaml(hospital / "student.yaml", config), hospital / "student"
    assert call_tool("train", path, "--work-dir", run) == 0
    assert "60.0% of the teacher's multiply-accumulates" in capsys.readouterr().out
    assert call_tool("eval", path, hospital / "teacher.pth", "--role", "teacher", "--split", "test") == 0
    assert "img_range" not in capsys.readouterr().err
    assert call_tool("eval", path, run, "--cfg-options", "dataset.img_range=[0,65535]") == 0
    assert "% of img_range. Is it the files' range?" in capsys.readouterr().err
    assert call_tool("eval", path, run, "--split", "test") == 0
    score = re.search(r"mIoU: ([\d.]+)", capsys.readouterr().out)[1]
    assert (run / "report.html").stat().st_size > 10_000

    assert call_tool("export", run, "--format", "onnx", "--split", "test") == 0
    printed = capsys.readouterr().out
    found = re.findall(r"mIoU on test: ([\d.]+) %", printed)
    assert len(found) == 2 and all(float(each) == pytest.approx(float(score), abs=0.02) for each in found)
    session = onnxruntime.InferenceSession(run / "student.onnx")
    assert session.get_inputs()[0].shape == ["batch", 1, "height", "width"]
    said = session.get_modelmeta().custom_metadata_map
    assert "its sigmoid is above 0.5" in said["output"] and "inside the file" in said["normalisation"]

    # As the teacher's users do it: their file, their scaling, one logit, the sigmoid, the threshold.
    student = load_segmentor(run / "student.pt")
    for file in sorted((hospital / "img" / "test").iterdir()):
        image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED).astype(np.float32)[None, None] / 4095
        (logit,) = session.run(["logits"], {"images": image})
        with torch.no_grad():
            predicted = student(torch.from_numpy(image)).argmax(1).numpy()
        assert logit.shape == (1, 1, 48, 64)
        assert np.mean((1 / (1 + np.exp(-logit[:, 0])) > 0.5) == predicted) > 0.999
        assert 0 < predicted.mean() < 0.5
