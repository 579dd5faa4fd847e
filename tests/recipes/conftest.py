"""A finished tiny experiment on tiny street scenes, made once by the tools themselves."""

from types import SimpleNamespace

import pytest
from shared import STUDENT, call_tool, experiment, write_yaml


@pytest.fixture(autouse=True)
def plain_charts(request, monkeypatch):
    """No curves are drawn, which takes longer than such a run; test_run_report.py has them."""
    if request.module.__name__ != "test_run_report":
        monkeypatch.setattr("dfad_seg.runs.report.curves_svg", lambda *_, **__: "<svg></svg>")


@pytest.fixture(scope="session")
def world(tmp_path_factory, tiny_scenes):
    """Configs of all four methods, and a trained teacher: `world.teacher`."""
    folder = tmp_path_factory.mktemp("world")
    teacher_file = folder / "teacher_run" / "teacher.pt"
    saved = {"source": "saved", "checkpoint": str(teacher_file)}
    game = {"student": STUDENT, "teacher": saved, "student_steps": 2}
    own = {"teacher": STUDENT | {"encoder_name": "tu-test_resnet"}, "student_optimizer": {"type": "sgd", "lr": 0.1}}
    own |= {"training_data": {"num_workers": 0}, "iterations": 12, "save_every": 0, "log_every": 6}
    data = {"teacher": saved, "student": STUDENT, "training_data": {"num_workers": 0}}
    configs = {
        "supervised": experiment("supervised", tiny_scenes, **own),
        "distill_with_data": experiment("distill_with_data", tiny_scenes, **data),
        "random_noise": experiment("random_noise", tiny_scenes, **game),
        "dfad": experiment("dfad", tiny_scenes, generator={"type": "dcgan", "latent_dim": 16}, preview_every=2, **game),
    }
    paths = {name: write_yaml(folder / f"{name}.yaml", values) for name, values in configs.items()}
    assert call_tool("train", paths["supervised"], "--work-dir", teacher_file.parent) == 0
    return SimpleNamespace(folder=folder, configs=configs, paths=paths, teacher=teacher_file, data=tiny_scenes)


@pytest.fixture(scope="session")
def dfad_run(world):
    """The directory of a finished run of `world.paths["dfad"]`. Do not write to it."""
    path = world.folder / "dfad_run"
    assert call_tool("train", world.paths["dfad"], "--work-dir", path) == 0
    return path
