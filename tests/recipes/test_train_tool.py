"""tools/train_seg.py: all methods end to end, what a run leaves behind, resume, several processes."""

import json
import shutil

import pytest
import torch
import yaml
from doc_pages import REPOSITORY
from shared import call_tool, python, write_yaml

from dfad_seg import evaluate, load_config
from dfad_seg.objectives import PRIORS
from dfad_seg.runs import Run
from dfad_seg.segmentors import load_segmentor, state_hash


def test_run_directory_is_complete_and_metrics_have_every_step_once(dfad_run):
    names = {str(p.relative_to(dfad_run)) for p in dfad_run.rglob("*") if p.is_file() and "tensorboard" not in p.parts}
    numbered = {f"checkpoints/iteration_0000000{step}.pt" for step in (2, 3)}
    numbered |= {f"pictures/generated_0000000{step}.png" for step in (2, 3)}
    assert names - numbered == {
        "config.yaml", "provenance.json", "metrics.jsonl", "student.pt", "report.html", "summary.json"
    } and numbered <= names  # fmt: skip
    assert list((dfad_run / "tensorboard").glob("events.*"))
    provenance = json.loads((dfad_run / "provenance.json").read_text())
    assert provenance["real_images_used_for_training"] is False
    assert [use["purpose"] for use in provenance["real_images"]] == ["evaluation"]
    config = yaml.safe_load((dfad_run / "config.yaml").read_text())
    assert provenance["trained_steps"] == config["iterations"] * config["student_steps"]
    assert len(provenance["teacher"]["file_sha256"]) == 64
    assert provenance["packages"]["torch"] == torch.__version__.split("+")[0]
    assert (config["generator"]["type"], config["generator"]["latent_dim"]) == ("dcgan", 16)
    records = Run(dfad_run).records
    assert [r["step"] for r in records if "train/student_loss" in r] == [1, 2, 3]
    assert [r["step"] for r in records if "val/mIoU" in r] == [2, 3]
    assert {"train/generator_loss", "train/student_class_entropy", "train/generator_lr"} <= records[0].keys()
    assert "val/IoU/bicyclist" in records[-1]


@pytest.mark.parametrize("method", ["distill_with_data", "random_noise"])
def test_controls_run(world, method):
    path = world.folder / f"{method}_run"
    assert call_tool("train", world.paths[method], "--work-dir", path) == 0
    provenance = json.loads((path / "provenance.json").read_text())
    assert provenance["real_images_used_for_training"] is (method == "distill_with_data")
    records = Run(path).records
    assert records[-1]["step"] == 3 and not any("generator" in name for name in records[0])
    assert (path / "student.pt").exists()


def test_resume_equals_uninterrupted(dfad_run, world, tmp_path, capsys):
    call_tool("train", world.paths["dfad"], "--work-dir", tmp_path / "run")
    # As if it had been killed after its second checkpoint; data and teacher lie elsewhere by now.
    for late in ("student.pt", "checkpoints/iteration_00000003.pt"):
        (tmp_path / "run" / late).unlink()
    shutil.copytree(world.data, tmp_path / "data")
    moved = {"dataset.root": tmp_path / "data", "teacher.checkpoint": shutil.copy(world.teacher, tmp_path / "moved.pt")}
    changed = moved | {"precision": "32-true", "evaluation.every": 1, "deterministic": True}
    again = ["train", world.paths["dfad"], "--work-dir", tmp_path / "run", "--resume", "--cfg-options"]
    again += [f"{key}={value}" for key, value in changed.items()]
    image = next((tmp_path / "data" / "val").iterdir())
    image.rename(image.with_name("other.png"))
    (tmp_path / "data" / "valannot" / image.name).rename(tmp_path / "data" / "valannot" / "other.png")
    assert call_tool(*again) == 2
    assert "split 'val', are not those with which the run" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "data")
    shutil.copytree(world.data, tmp_path / "data")
    assert call_tool(*again) == 0
    (resumed,) = json.loads((tmp_path / "run" / "provenance.json").read_text())["resumed"]
    assert resumed["iteration"] == 2 and set(resumed["changed"]) == set(changed)
    ours, theirs = (load_segmentor(run / "student.pt") for run in (tmp_path / "run", dfad_run))
    assert state_hash(ours) == state_hash(theirs)
    strip = [{k: v for k, v in r.items() if k != "elapsed_s"} for r in Run(tmp_path / "run").records]
    assert strip == [{k: v for k, v in r.items() if k != "elapsed_s"} for r in Run(dfad_run).records]


def test_layouts_all_priors_and_the_2021_extensions(world, tmp_path):
    values = world.configs["dfad"] | {
        "generator": {"type": "layout", "width": 4},
        "priors": {name: 0.1 for name in PRIORS},
        "interpolation": {"alpha": 0.5},
        "activation_boundary": 0.05,
        "student_norm": "batch",
        "ema_decay": 0.9,
        "image_size": [33, 47],
        "iterations": 2,
    }
    path = write_yaml(tmp_path / "layout.yaml", values)
    assert call_tool("train", path, "--work-dir", tmp_path / "run") == 0
    last = [r for r in Run(tmp_path / "run").records if "train/generator_batch_norm_prior" in r][-1]
    assert last["train/generator_layout_consistency"] > 0 and last["train/student_activation_boundary"] > 0
    assert not any("connector" in name for name in load_segmentor(tmp_path / "run" / "student.pt").state_dict())
    record = json.loads((tmp_path / "run" / "provenance.json").read_text())
    layers = record["batch_norm_prior_layers"]
    assert len(layers) > 5 and all("pool" not in name for name in layers)
    assert record["trained_from"] == {}
    assert not record["real_images_used_for_training"]


def test_data_free_training_never_opens_the_training_split(world, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(world.data, data)
    for folder in ("train", "trainannot", "test", "testannot"):
        shutil.rmtree(data / folder)
    dataset = {"type": "street_scenes", "root": str(data)}
    path = write_yaml(tmp_path / "c.yaml", world.configs["dfad"] | {"dataset": dataset, "iterations": 1})
    assert call_tool("train", path, "--work-dir", tmp_path / "run") == 0
    assert "val/mIoU" in Run(tmp_path / "run").records[-1]


def test_dry_run_prints_costs_and_writes_nothing(world, tmp_path, capsys):
    assert call_tool("train", world.paths["dfad"], "--work-dir", tmp_path / "run", "--dry-run", "--seed", 5) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["seed"] == 5
    assert all(f"# {role}: " in printed for role in ("teacher", "student"))
    assert printed.count("GFLOPs") == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_write_one_run(world, tmp_path):
    arguments = (world.paths["dfad"], "--devices", 2, "--work-dir", tmp_path / "run")
    python(REPOSITORY / "tools" / "train_seg.py", *arguments, CUDA_VISIBLE_DEVICES="")
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["processes"] == 2
    records = Run(tmp_path / "run").records
    assert len(records) == 5  # one writer: three training and two evaluation records
    # Each of three images is counted once: none is padded, and none read by both.
    alone = evaluate(load_config(world.paths["dfad"]), load_segmentor(tmp_path / "run" / "student.pt"))
    assert records[-1]["val/mIoU"] == pytest.approx(alone.mIoU, abs=1e-6)
