"""Bad input: one clear line on stderr that says what, where and what to do; exit code 2; nothing written."""

import os
import pickle
import shutil

import cv2
import numpy as np
import pytest
import torch
from conftest_pipeline import call_tool, write

from dfad_seg.segmentors import read_segmentor_file


@pytest.fixture
def broken(world, tmp_path):
    """A private copy of the data to break, and a config of it."""
    data = tmp_path / "data"
    shutil.copytree(world.data, data)
    values = world.configs["distill_with_data"] | {"dataset": {"type": "street_scenes", "root": str(data)}}
    return data, write(tmp_path / "broken.yaml", values)


def refused(capsys, tmp_path, *arguments, says):
    run = tmp_path / "run"
    assert call_tool(*arguments, "--work-dir", run) == 2
    error = capsys.readouterr().err
    line = next(text for text in error.splitlines() if text.startswith("error: "))
    for part in says:
        assert part in error, error
    assert "Traceback" not in error and len(line) < 600
    return run


def first(folder):
    return sorted(folder.iterdir())[0]


def break_image_missing_mask(data):
    victim = first(data / "trainannot")
    victim.unlink()
    return [victim.stem, "mask"]


def break_mask_size(data):
    victim = first(data / "trainannot")
    cv2.imwrite(str(victim), np.zeros((10, 10), np.uint8))
    return [victim.name, "10"]


def break_label_range(data):
    for victim in sorted((data / "trainannot").iterdir()):
        mask = cv2.imread(str(victim), cv2.IMREAD_UNCHANGED)
        mask[3, 3] = 77
        cv2.imwrite(str(victim), mask)
    return ["77"]


def break_image_bytes(data):
    for victim in sorted((data / "train").iterdir()):
        victim.write_bytes(victim.read_bytes()[:100])
    return [".png"]


def break_folder(data):
    shutil.rmtree(data / "train")
    return ["train"]


def break_rgb_mask(data):
    for victim in sorted((data / "trainannot").iterdir()):
        cv2.imwrite(str(victim), np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8))
    return ["mask"]


@pytest.mark.parametrize(
    "damage",
    [
        break_image_missing_mask,
        break_mask_size,
        break_label_range,
        break_image_bytes,
        break_folder,
        break_rgb_mask,
    ],
)
def test_broken_data(broken, capsys, tmp_path, damage):
    data, config = broken
    refused(capsys, tmp_path, "train", config, says=damage(data))


def teacher_cases(folder, teacher_file):
    """(name, teacher section's checkpoint content, words of the message)"""
    state = read_segmentor_file(teacher_file)["state_dict"]

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(folder / "owned"),)

    other = {k: v for k, v in state.items() if not k.startswith("decoder")}
    more_classes = dict(state)
    for key in ("segmentation_head.0.weight", "segmentation_head.0.bias"):
        more_classes[key] = torch.cat([state[key], state[key][:8]])
    return {
        "other architecture": (other, ["missing", "decoder"]),
        "other class count": (more_classes, ["19", "11"]),
        "unexpected keys": (state | {"extra.weight": torch.zeros(1)}, ["extra.weight"]),
        "not finite": (state | {"segmentation_head.0.bias": torch.full((11,), float("nan"))}, ["segmentation_head.0"]),
        "code": (Attack(), []),
        "garbage": (b"garbage", []),
        "empty": (b"", []),
        "truncated": ("half", []),
    }


@pytest.mark.parametrize(
    "case",
    [
        "other architecture",
        "other class count",
        "unexpected keys",
        "not finite",
        "code",
        "garbage",
        "empty",
        "truncated",
    ],
)
def test_bad_teacher_checkpoints(world, capsys, tmp_path, case):
    content, says = teacher_cases(tmp_path, world.teacher)[case]
    path = tmp_path / "teacher.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "half":
        whole = world.teacher.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif isinstance(content, dict):
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    section = world.configs["supervised"]["teacher"] | {"checkpoint": str(path)}
    config = write(tmp_path / "c.yaml", world.configs["dfad"] | {"teacher": section})
    run = refused(capsys, tmp_path, "train", config, says=[str(path), *says])
    assert not run.exists() and not (tmp_path / "owned").exists()


UNET = {"source": "smp", "arch": "Unet", "encoder_name": "resnet18"}
NETWORKS = [
    ({"teacher": UNET}, ["no checkpoint", "random"]),
    ({"teacher": {"source": "saved", "checkpoint": "absent.pt"}}, ["absent.pt"]),
    ({"student": UNET | {"arch": "DeepLabV4"}}, ["student", "DeepLabV4"]),
    ({"student": UNET | {"encoder_name": "resnet8"}}, ["student", "resnet8", "Did you mean"]),
    ({"student": {"source": "factory", "factory": "nowhere.to:go", "mean": [0, 0, 0], "std": [1, 1, 1]}}, ["nowhere"]),
    ({"student": {"source": "torchscript", "path": "x.ts", "mean": [0, 0, 0], "std": [1, 1, 1]}}, ["trust"]),
    ({"generator": {"type": "dcgan", "latent_dim": "many"}}, ["generator.latent_dim", "'many'"]),
    ({"adversarial_weight": 0}, ["the generator has nothing to learn"]),
    (
        {"generator": {"type": "layout", "sub_generators": 4}, "batch_size": 2},
        ["needs batches of 4 images", "Raise batch_size"],
    ),
    ({"progressive_sizes": [[16, 16], [32, 48]]}, ["makes images of (32, 48) only", "progressive_sizes"]),
    ({"student": UNET | {"encoder_checkpoint": 5}}, ["student.encoder_checkpoint"]),
    ({"work_dir": "elsewhere"}, ["work_dir: unknown key"]),
    ({"image_size": [33, 47]}, ["multiples of 16", "33x47"]),
    ({"num_classes": 5}, ["num_classes is 5", "11 classes"]),
    ({"dataset": {"type": "camvid", "root": "nowhere"}}, ["nowhere"]),
]


@pytest.mark.parametrize("changes, says", NETWORKS, ids=[str(i) for i in range(len(NETWORKS))])
def test_bad_sections(world, capsys, tmp_path, changes, says):
    config = write(tmp_path / "c.yaml", world.configs["dfad"] | changes)
    run = refused(capsys, tmp_path, "train", config, says=says)
    assert not run.exists()


def test_teacher_and_student_of_different_classes(world, capsys, tmp_path):
    values = {k: v for k, v in world.configs["dfad"].items() if k not in ("dataset", "evaluation")}
    config = write(tmp_path / "c.yaml", values | {"num_classes": 5})
    refused(capsys, tmp_path, "train", config, says=["teacher", "11 classes", "5"])


def test_work_dirs(world, capsys, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "thesis.txt").write_text("precious")
    refused(capsys, tmp_path, "train", world.paths["dfad"], says=["is not empty", "--work-dir"])
    assert [p.name for p in run.iterdir()] == ["thesis.txt"]
    # A run of another experiment: refused with and without --resume, and left as it was.
    (run / "thesis.txt").unlink()
    (run / "config.yaml").write_text("method: dfad\nseed: 99\n")
    refused(capsys, tmp_path, "train", world.paths["dfad"], says=["holds a run already"])
    refused(capsys, tmp_path, "train", world.paths["dfad"], "--resume", says=["another experiment", "seed"])
    assert (run / "config.yaml").read_text() == "method: dfad\nseed: 99\n"


def test_checkpoints_of_other_runs_and_teachers(world, capsys, tmp_path):
    run = tmp_path / "run"
    assert call_tool("train", world.paths["random_noise"], "--work-dir", run) == 0
    foreign = write(tmp_path / "other.yaml", world.configs["random_noise"] | {"seed": 1})
    assert call_tool("train", foreign, "--work-dir", tmp_path / "other") == 0
    checkpoint = sorted((tmp_path / "other" / "checkpoints").iterdir())[0]
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    capsys.readouterr()
    refused(capsys, tmp_path, "train", world.paths["random_noise"], "--resume", world.teacher, says=["not a resum"])
    says = ["of iteration", "of another experiment"]
    refused(capsys, tmp_path, "train", world.paths["random_noise"], "--resume", checkpoint, says=says)
    # The same config, and another teacher under the same name.
    state = read_segmentor_file(world.teacher)
    kept = world.teacher.read_bytes()
    try:
        state["state_dict"]["segmentation_head.0.bias"] += 1
        state.pop("sha256")
        torch.save(state, world.teacher)
        refused(capsys, tmp_path, "train", world.paths["random_noise"], "--resume", says=["teacher's weights"])
    finally:
        world.teacher.write_bytes(kept)
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()} == before


def test_resume_needs_a_run(world, capsys, tmp_path):
    run = refused(capsys, tmp_path, "train", world.paths["dfad"], "--resume", says=["no run to resume"])
    assert not run.exists()


def test_a_new_run_that_fails_at_once_leaves_nothing(world, capsys, tmp_path):
    config = write(tmp_path / "c.yaml", world.configs["dfad"] | {"batch_size": 1})
    run = refused(capsys, tmp_path, "train", config, says=["batch"])
    assert not run.exists()


def test_divergence_ends_with_its_own_code(world, capsys, tmp_path):
    optimizer = {"type": "sgd", "lr": 1.0e30}
    config = write(tmp_path / "c.yaml", world.configs["random_noise"] | {"student_optimizer": optimizer})
    assert call_tool("train", config, "--work-dir", tmp_path / "run") == 3
    assert "training diverged: train/student_loss is not finite" in capsys.readouterr().err


def test_command_line(world, capsys, tmp_path):
    refused(capsys, tmp_path, "train", tmp_path / "absent.yaml", says=["absent.yaml"])
    refused(capsys, tmp_path, "train", world.paths["dfad"], "--precision", "fp8", says=["precision"])
    if not torch.cuda.is_available():
        refused(capsys, tmp_path, "train", world.paths["dfad"], "--device", "cuda", says=["--device cpu"])
    for arguments in (["--devices", "two"], ["--device", "tpu"], ["--unknown"]):
        with pytest.raises(SystemExit) as stop:  # argparse's own way out
            call_tool("train", world.paths["dfad"], *arguments)
        assert stop.value.code == 2


def evaluated(capsys, *arguments):
    assert call_tool("eval", *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and "Traceback" not in error
    return error


def test_evaluation(world, capsys, tmp_path):
    supervised, dfad = world.paths["supervised"], world.paths["dfad"]
    assert "absent.pt" in evaluated(capsys, supervised, tmp_path / "absent.pt")
    assert "no student" in evaluated(capsys, supervised, world.teacher, "--role", "student")
    assert "Did you mean 'test'" in evaluated(capsys, supervised, world.teacher, "--split", "tset")
    assert "nowhere" in evaluated(capsys, supervised, world.teacher, "--dataset-root", tmp_path / "nowhere")
    assert "batch_size: input should be greater than 0, got -1" in evaluated(
        capsys, supervised, world.teacher, "--batch-size", "-1"
    )
    # The teacher's weights do not fit the student's architecture.
    assert "missing" in evaluated(capsys, dfad, world.teacher, "--role", "student")
    assert f"If {world.teacher} is the teacher, say so: --role teacher." in evaluated(capsys, dfad, world.teacher)
    # Weights that fit and a normalisation that is not the file's.
    wrong = ["--cfg-options", "teacher.mean=[0.5, 0.5, 0.5]"]
    assert "was trained with mean" in evaluated(capsys, supervised, world.teacher, *wrong)
    (tmp_path / "folder.json").mkdir()
    assert "is a folder" in evaluated(capsys, supervised, world.teacher, "--out", tmp_path / "folder.json")
    (tmp_path / "file").touch()
    assert "is no folder" in evaluated(capsys, supervised, world.teacher, "--show-dir", tmp_path / "file")
    assert "batch_size: input should be greater than 0, got 0" in evaluated(
        capsys, supervised, world.teacher, "--batch-size", "0"
    )
    out = tmp_path / "metrics.json"
    evaluated(capsys, supervised, tmp_path / "absent.pt", "--out", out)
    assert not out.exists()
