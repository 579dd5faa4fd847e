"""Runs whose student is cut out of the teacher."""

import copy
import signal

import pytest
import torch
from shared import call_tool, write_yaml

from dfad_seg.objectives import LogitAdjustment
from dfad_seg.recipes.cutting import adjust
from dfad_seg.runs import checkpoints
from dfad_seg.segmentors import build_segmentor, count_flops, load_segmentor, state_hash

SIZE = (32, 48)


@pytest.fixture(scope="module")
def cut_config(world, tmp_path_factory):
    student = {"source": "cut", "macs": 0.6, "rehearsal": 2, "images": 4, "importance": "magnitude"}
    changes = {"student": student, "fixed_norm": ["network"], "priors": {"batch_norm_prior": 1.0}}
    return write_yaml(tmp_path_factory.mktemp("cut") / "cut.yaml", world.configs["dfad"] | changes)


def train(config, run, *arguments):
    assert call_tool("train", config, "--work-dir", run, *arguments) == 0
    return load_segmentor(run / "student.pt")


def test_a_run_cuts_trains_and_resumes_to_the_same_bits(cut_config, world, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    whole = train(cut_config, run)
    share = count_flops(whole, SIZE) / count_flops(load_segmentor(world.teacher), SIZE)
    said = capsys.readouterr()
    assert 0.58 <= share <= 0.6 and f"cut: {share:.1%} of the teacher's multiply-acc" in said.out
    assert "the generator learns before the cut: iteration 2/2, " in said.err
    start = load_segmentor(run / "student_as_cut.pt")
    assert whole.spec["widths"] == start.spec["widths"] and state_hash(start) != state_hash(whole)
    kept = {key: value for key, value in start.network.state_dict().items() if "running_" in key}
    assert all((whole.network.state_dict()[key] == value).all() for key, value in kept.items())

    assert call_tool("eval", cut_config, run / "student_as_cut.pt", "--split", "val") == 0

    for left in (2, 0):  # killed after the second checkpoint, and before the first
        (run / "student.pt").unlink()
        for file in checkpoints(run)[left:]:
            file.unlink()
        capsys.readouterr()
        assert state_hash(train(cut_config, run, "--resume")) == state_hash(whole)
        assert (f"cut: {share:.1%}" in capsys.readouterr().out) == (left == 0)
    for config, scored in ((cut_config, True), (world.paths["dfad"], False)):  # there the file is a stranger's
        train(config, other := tmp_path / f"other_{scored}", "--cfg-options", "report=full")
        (other / "student.pt").rename(other / "student_as_cut.pt")
        train(config, other, "--resume", "--cfg-options", "report=full")
        assert ('"start"' in (other / "summary.json").read_text()) == scored
    monkeypatch.setattr("dfad_seg.runs.RunDirectory.write_provenance", lambda *_: signal.raise_signal(signal.SIGINT))
    assert call_tool("train", cut_config, "--work-dir", tmp_path / "stopped") == 130
    assert (tmp_path / "stopped" / "student_as_cut.pt").exists()  # what has provenance has begun


def test_the_adjustment_is_in_the_student_before_it_trains():
    torch.manual_seed(0)
    teacher = build_segmentor("smp", num_classes=4, arch="Unet", encoder_name="resnet18").eval()
    student = copy.deepcopy(teacher)
    adjustment, images = LogitAdjustment(4, 0.5), torch.rand(3, 3, 32, 32)
    adjust(student, adjustment, teacher, images)
    shares = teacher(images).softmax(1).mean((0, 2, 3)).detach()
    torch.testing.assert_close(adjustment.shares, shares)
    assert not torch.equal(student(images), teacher(images))
    torch.testing.assert_close(adjustment(student(images)), teacher(images))  # what its loss compares
