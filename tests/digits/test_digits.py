"""The classification form end to end: the same steps and loop, logits (N, C)."""

import inspect
import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn", reason="the digits come with scikit-learn: pip install scikit-learn")

from dfad_seg import digits
from dfad_seg.common.errors import InputError
from dfad_seg.distill import student_step
from dfad_seg.objectives import DISCREPANCIES, Interpolation, weighted_discrepancy

CONFIGS = Path(__file__).parents[2] / "configs" / "digits"


def test_parts_are_disjoint_and_balanced():
    parts = {split: digits.load_digits(split, (16, 16)) for split in digits.SPLITS}
    assert [len(part.labels) for part in parts.values()] == [1078, 359, 360]
    for part in parts.values():
        assert part.images.shape[1:] == (3, 16, 16) and 0 <= part.images.min() and part.images.max() <= 1
        shares = torch.bincount(part.labels, minlength=10) / len(part.labels)
        assert shares.min() > 0.09
    # The set has hardly any two equal digits, so a shared one would show.
    rows = {split: {bytes(image.numpy()) for image in part.images} for split, part in parts.items()}
    assert not rows["train"] & rows["test"] and not rows["val"] & rows["test"]


@pytest.mark.parametrize("name", sorted(DISCREPANCIES))
def test_student_step_of_a_classifier(name):
    torch.manual_seed(0)
    teacher, student = digits.LeNet(4).eval().requires_grad_(False), digits.LeNet(2)
    result = student_step(
        student=student,
        teacher=teacher,
        images=torch.rand(6, 3, 16, 16),
        optimizer=torch.optim.SGD(student.parameters(), lr=0.01),
        loss_fn=weighted_discrepancy({name: 1.0}),
        interpolation=Interpolation("cutmix"),
        rng=torch.Generator().manual_seed(0),
    )
    assert result["teacher_logits"].shape == (6, 10) and result["classes"].sum().item() == pytest.approx(1)
    assert torch.isfinite(result["loss"]) and result["loss"] > 0


def test_distillation_has_no_way_to_a_digit():
    assert list(inspect.signature(digits.distil_digits).parameters) == ["config", "teacher"]


def test_the_2021_extensions_learn_within_seconds(tmp_path, capsys):
    out = tmp_path / "digits.json"
    digits.run_digits(
        [CONFIGS / "dfad_2021.yaml"], seeds=[0], out=out, overrides=["iterations=60", "schedule.every=50"]
    )
    rows = json.loads(out.read_text())["rows"]
    [student], [teacher] = rows["dfad_2021"], rows["teacher"]
    assert teacher["accuracy"] > 0.95
    assert student["accuracy"] > 0.4  # chance is 0.1; the whole length is in the slow test
    assert student["of_teacher"] == pytest.approx(student["accuracy"] / teacher["accuracy"])
    assert f"| dfad_2021 | {student['accuracy']:.3f} ± 0.000 |" in capsys.readouterr().out


def test_priors_of_a_classifier(capsys):
    short = ["iterations=2", "schedule.every=1", "activation_magnitude=0.1", "one_hot=0.1", "total_variation=0.1"]
    digits.run_digits([CONFIGS / "dfad.yaml"], seeds=[0], overrides=short)
    assert "| dfad | " in capsys.readouterr().out


@pytest.mark.slow
def test_shipped_configs_at_full_length():
    names = ("dfad", "dfad_2021", "random_noise")
    rows = digits.run_digits([CONFIGS / f"{name}.yaml" for name in names], seeds=[0])["rows"]
    shares = {name: rows[name][0]["of_teacher"] for name in names}
    assert shares["dfad"] > 0.9 and shares["dfad_2021"] > 0.9
    assert 0.7 < shares["random_noise"] < 1  # so small are these digits that noise teaches most of them


def test_bad_input(tmp_path, monkeypatch):
    text = (CONFIGS / "dfad.yaml").read_text()
    for change, message in (
        (("num_classes: 10", "num_classes: 11"), "num_classes: 10"),
        (("source: factory", "source: smp"), "source: factory, not smp"),
        (("device: cpu", "device: cuda"), "runs on the CPU, and device is cuda"),
    ):
        path = tmp_path / "c.yaml"
        path.write_text(text.replace(*change))
        with pytest.raises(InputError, match=message):
            digits.run_digits([path], seeds=[0])
    for generator in ("{type: layout}", "{type: layout, recalled: 0.5}", "{type: layout, class_frequencies: moments}"):
        with pytest.raises(InputError, match="this one is a classifier. Use generator.type: dcgan"):
            digits.run_digits([CONFIGS / "dfad.yaml"], seeds=[0], overrides=[f"generator={generator}"])
    with pytest.raises(InputError, match="generator.class_frequencies"):
        overrides = ["generator={type: dcgan, class_frequencies: moments}"]
        digits.run_digits([CONFIGS / "dfad.yaml"], seeds=[0], overrides=overrides)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match="pip install scikit-learn"):
        digits.load_digits("train", (16, 16))
