"""A finished tiny experiment on tiny street scenes, made once by the tools themselves."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from conftest_pipeline import STUDENT, call_tool, tiny, write  # noqa: E402


@pytest.fixture(scope="session")
def world(tmp_path_factory, tiny_scenes):
    """Configs of all four methods, and a trained teacher: `world.teacher`."""
    folder = tmp_path_factory.mktemp("world")
    teacher_file = folder / "teacher_run" / "teacher.pt"
    saved = {"source": "saved", "checkpoint": str(teacher_file)}
    teacher_section = {"source": "smp", "arch": "DeepLabV3Plus", "encoder_name": "mobilenet_v2", "decoder_channels": 16}
    game = {"student": STUDENT, "teacher": saved, "student_steps": 2}
    configs = {
        "supervised": tiny(
            "supervised", tiny_scenes, teacher=teacher_section, training_data={"num_workers": 0}, iterations=2
        ),
        "distill_with_data": tiny(
            "distill_with_data", tiny_scenes, teacher=saved, student=STUDENT, training_data={"num_workers": 0}
        ),
        "random_noise": tiny("random_noise", tiny_scenes, **game),
        "dfad": tiny("dfad", tiny_scenes, generator={"type": "dcgan", "latent_dim": 16}, preview_every=2, **game),
    }
    configs["dfad"]["image_size"] = configs["random_noise"]["image_size"] = [32, 48]
    paths = {name: write(folder / f"{name}.yaml", values) for name, values in configs.items()}
    assert call_tool("train", paths["supervised"], "--work-dir", teacher_file.parent) == 0
    return SimpleNamespace(folder=folder, configs=configs, paths=paths, teacher=teacher_file, data=tiny_scenes)
