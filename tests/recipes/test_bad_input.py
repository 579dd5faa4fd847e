"""Bad input: one clear line on stderr that says what, where and what to do; exit code 2; nothing written.

The rooms test their messages themselves; here is one of each kind on its way through a command.
"""

import re
import shutil
import sys

import cv2
import pytest
import torch
from shared import call_tool, contents, write_yaml

from dfad_seg.common.tensors import digest
from dfad_seg.segmentors import read_segmentor_file


def refused(capsys, place, tool, *arguments, says):
    """The command ends with exit code 2 and one line that holds each of `says`, and changes nothing in `place`."""
    before = contents(place)
    try:
        code = call_tool(tool, *arguments)
    except SystemExit as end:  # argparse's own way out
        code = end.code
    said, printed = capsys.readouterr()
    assert code == 2 and "Traceback" not in printed, printed
    assert "cut:" not in said, "work of minutes came first"
    errors = [line for line in printed.splitlines() if line.startswith("error: ") or ": error: " in line]
    assert len(errors) == 1 and 20 < len(errors[0]) < 1200, printed
    assert [part for part in says if part not in printed] == [], printed
    assert contents(place) == before, "something was written"


UNET = {"source": "smp", "arch": "Unet", "encoder_name": "resnet18"}
CUT = {"source": "cut", "macs": 0.6, "rehearsal": 1, "images": 2}
PLAIN = {"mean": [0, 0, 0], "std": [1, 1, 1]}
SECTIONS = [
    ("dfad", {"teacher": UNET}, ["no checkpoint", "random"]),
    ("dfad", {"student": {"source": "torchscript", "path": "x.ts", **PLAIN}}, ["trust"]),
    ("dfad", {"generator": {"type": "layout", "sub_generators": 4}}, ["needs batches of 4 images", "Raise batch_size"]),
    ("dfad", {"image_size": [33, 47]}, ["multiples of 16", "33x47"]),
    ("dfad", {"batch_size": 1}, ["batch"]),
    ("dfad", {"student": UNET | {"arch": "FPN", "stride": 1}, "image_size": [32, 32]}, ["(1, 3, 32, 48)", "stride"]),
    ("dfad", {"student": UNET | {"in_channels": 1, "mean": [0], "std": [1]}}, ["Set student.in_channels to 3"]),
    ("dfad", {"student": CUT, "priors": {"batch_norm_prior": 1.0}, "evaluation": {"split": "vla"}}, ["mean 'val'"]),
    ("dfad", {"student": CUT, "priors": {"batch_norm_prior": 1.0}, "transfer_images": "nowhere"}, ["nowhere"]),
    ("dfad", {"student": CUT}, ["give it priors"]),
    ("random_noise", {"student": CUT}, ["needs the images of a generator"]),
]  # fmt: skip


@pytest.mark.parametrize(("method", "changes", "says"), SECTIONS, ids=range(len(SECTIONS)))
def test_configs(world, capsys, tmp_path, method, changes, says):
    values = {key: value for key, value in (world.configs[method] | changes).items() if value is not ...}
    config = write_yaml(tmp_path / "c.yaml", values)
    refused(capsys, tmp_path, "train", config, "--work-dir", tmp_path / "run", says=says)


TRAIN = ("train", "GOOD", "--work-dir", "run")
SCORE = ("eval", "OWN", "NETWORK")
CHECK = ("prepare", "check", "--root", "DATA", "--type")
COMMANDS = [
    (("train",), ["CONFIG"]),
    (("train", "absent.yaml", "--work-dir", "run"), ["absent.yaml"]),
    (("train", "GOOD", "--work-dir", "file"), ["is a file"]),
    (("train", "GOOD", "--work-dir", "full"), ["is not empty", "--work-dir"]),
    (("train", "GOOD", "--work-dir", "/proc/dfad_seg/run"), ["cannot write to the work-dir"]),
    ((*TRAIN, "--devices", "1000"), ["devices is 1000"]),
    ((*TRAIN, "--cfg-options", "seed=[1"), ["--cfg-options", "YAML"]),
    ((*TRAIN, "--resume"), ["no run to resume"]),
    (("eval", "fulll"), ["nothing to score", "Did you mean 'full'"]),
    (("compare", "fulll"), ["not a run directory", "Did you mean 'full'"]),
    (("eval", "--predictions", "x"), ["no data set"]),
    (("eval", "--compare", "x"), ["at least two"]),
    (("eval", "--compare", "x", "y", "--show-dir", "DATA"), ["writes no predictions"]),
    (("eval", "--compare", "NETWORK", "NETWORK"), ["alike"]),
    (("eval", "OWN", "DATA"), ["no prediction for 3 of 3"]),
    (("eval", "GOOD", "NETWORK", "--role", "student"), ["missing"]),
    ((*SCORE, "--predictions", "x"), ["do not go together"]),
    ((*SCORE, "--out", "x.txt"), ["ends in .json or .csv"]),
    ((*SCORE, "--subset", "raod"), ["Did you mean 'road'"]),
    (("eval", "OWN", "--predictions", "DATA/test", "--ece"), ["needs probabilities"]),
    ((*SCORE, "--ci", "-3"), ["a bootstrap of -3 resamples"]),
    ((*SCORE, "--out", "OWN/x.json"), ["is no folder"]),
    ((*SCORE, "--split", "tset"), ["Did you mean 'test'"]),
    ((*SCORE, "--cfg-options", "teacher.mean=[0.5, 0.5, 0.5]"), ["was trained with mean"]),
    (("export", "full", "--format", "onnx"), ["no run directory"]),
    (("export", "NETWORK", "--format", "onnx", "--int8"), ["method is supervised"]),
    (("export", "lone.pt", "--format", "onnx", "--int8"), ["is no run directory"]),
    (("export", "lone.pt", "--format", "onnx", "--split", "test"), ["no run directory with a data set"]),
    (("export", "RUN", "--format", "onnx", "--int8", "--no-dynamic", "--size", "48", "64"), ["(48, 64) was asked"]),
    (("export", "RUN", "--format", "tflite"), ["Known: mmseg, onnx"]),
    (("export", "RUN", "--format", "smp", "--split", "tset"), ["Did you mean 'test'"]),
    (("export", "RUN", "--format", "torchscript", "--out", "full"), ["is a folder"]),
    ((*CHECK, "street_scens"), ["Did you mean 'street_scenes'"]),
    (("prepare", "camvid", "--root", "run", "--url", "nonsense"), ["http"]),
]


@pytest.mark.parametrize(("arguments", "says"), COMMANDS, ids=range(len(COMMANDS)))
def test_command_lines(world, dfad_run, capsys, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["dfad_seg.recipes.evaluate"], "evaluate_miou", lambda *_, **__: pytest.fail("done"))
    (tmp_path / "file").write_text("a text")
    shutil.copy(world.teacher, tmp_path / "lone.pt")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    names = {"GOOD": world.paths["dfad"], "OWN": world.paths["supervised"], "DATA": world.data, "RUN": dfad_run}
    names["NETWORK"] = world.teacher
    words = [re.sub("^(GOOD|OWN|DATA|RUN|NETWORK)\\b", lambda name: str(names[name[0]]), word) for word in arguments]
    refused(capsys, tmp_path, *words, says=says)


def test_broken_data(world, capsys, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(world.data, data)
    for victim in (data / "trainannot").iterdir():
        cv2.imwrite(str(victim), cv2.imread(str(victim), cv2.IMREAD_UNCHANGED) + 77)
    values = world.configs["distill_with_data"] | {"dataset": {"type": "street_scenes", "root": str(data)}}
    config = write_yaml(tmp_path / "broken.yaml", values)
    refused(capsys, tmp_path, "train", config, "--work-dir", tmp_path / "run", says=["label 77", ".png"])


def test_checkpoints_of_other_runs_and_teachers(world, capsys, tmp_path):
    run, config = tmp_path / "run", world.paths["random_noise"]
    assert call_tool("train", config, "--work-dir", run) == 0
    foreign = write_yaml(tmp_path / "other.yaml", world.configs["random_noise"] | {"seed": 1})
    assert call_tool("train", foreign, "--work-dir", tmp_path / "other") == 0
    checkpoint = sorted((tmp_path / "other" / "checkpoints").iterdir())[0]
    capsys.readouterr()
    for more, says in (
        ([], ["holds a run already"]),
        (["--resume", world.teacher], ["no resum"]),
        (["--resume", checkpoint], ["of iteration", "of another experiment"]),
        (["--resume", "--seed", 2], ["another experiment", "seed"]),
    ):
        refused(capsys, tmp_path, "train", config, "--work-dir", run, *more, says=says)
    # The same config, and another teacher under the same name.
    state = read_segmentor_file(world.teacher)
    kept = world.teacher.read_bytes()
    try:
        state["state_dict"]["segmentation_head.0.bias"] += 1
        state["sha256"] = digest(state["state_dict"])
        torch.save(state, world.teacher)
        refused(capsys, tmp_path, "train", config, "--work-dir", run, "--resume", says=["teacher's weights"])
    finally:
        world.teacher.write_bytes(kept)
