"""The recommended recipe's own iteration: layouts, textures, priors, steps on remembered images."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch
from lightning_fabric import Fabric

from dfad_seg.config import Config, GameConfig, load_config
from dfad_seg.distill import Hooks, distil
from dfad_seg.recipes.build import build_experiment
from dfad_seg.segmentors import build_segmentor, optimize_for_distillation, save_segmentor
from throughput.pairs import NUM_CLASSES, PAIRS

RECIPE = "camvid/recommended_cpu_30min"


def recipe_iteration(
    batch: int, size: tuple[int, int], device: torch.device, *, bf16: bool, iterations: int
) -> dict[str, Any]:
    """Seconds of each of so many iterations with an untrained teacher, after two that are not counted."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        save_segmentor(f"{folder}/teacher.pt", build_segmentor(num_classes=NUM_CLASSES, **PAIRS["small"][0]))
        experiment = build_experiment(_config(batch, size, iterations + 2, f"{folder}/teacher.pt"))
    assert experiment.generator is not None and isinstance(experiment.config, GameConfig)
    optimize_for_distillation(experiment.trained, size, trainable=True)  # as a run does
    fabric = Fabric(accelerator=device.type, devices=1, precision="bf16-mixed" if bf16 else "32-true")
    times: list[float] = []

    def advance(_: int) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter())

    distil(
        experiment.fast_teacher(),
        experiment.trained,
        experiment.generator,
        experiment.config,
        losses=experiment.losses,
        fabric=fabric,
        hooks=Hooks(advance=advance),
    )
    return {"iteration_s": [after - before for before, after in zip(times[1:], times[2:], strict=False)]}


def _config(batch: int, size: tuple[int, int], iterations: int, teacher: str) -> Config:
    return load_config(
        RECIPE,
        [
            f"teacher.checkpoint={teacher}",
            "dataset=null",
            "evaluation=null",
            f"num_classes={NUM_CLASSES}",
            f"iterations={iterations}",
            f"batch_size={batch}",
            f"image_size=[{size[0]}, {size[1]}]",
            f"replay.size={4 * batch}",
        ],
    )
