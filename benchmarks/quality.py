"""What agreement on generated images has meant: students of finished runs, scored with labels and without.

    python benchmarks/quality.py runs/a runs/b ... > benchmarks/results/quality.json

Students are those of a run's checkpoints, the one as it was cut, and the last one with its weights disturbed by
Gaussian noise (a share of each tensor's standard deviation): so there are some of every quality.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn

from dfad_seg.evaluation import evaluate_miou
from dfad_seg.recipes import load_config
from dfad_seg.recipes.build import build_experiment, build_generator, evaluation_dataset
from dfad_seg.recipes.cutting import START_FILE
from dfad_seg.recipes.quality import held_out_images, labelled_by, unshifted
from dfad_seg.recipes.samples import EvaluationSamples
from dfad_seg.runs import checkpoints, read_checkpoint
from dfad_seg.runs.records import Score

NOISE = (0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1, 0.2, 0.4)
EVERY = 3
"""Of so many labelled images one is scored: teacher and students see the same ones."""


def students(run: Path, trained: nn.Module, noise: bool) -> Iterator[tuple[str, nn.Module]]:
    """(what it is, network) of a run's students; `trained` is the one as it was cut, or as large."""
    if (run / START_FILE).exists():
        yield "as cut", copy.deepcopy(trained)
    for path in checkpoints(run):
        state = read_checkpoint(path)
        average = {key.removeprefix("module."): value for key, value in (state.get("average") or {}).items()}
        average.pop("n_averaged", None)
        trained.load_state_dict(average or state["networks"]["student"])
        yield path.stem, copy.deepcopy(trained)
    for share in NOISE if noise else ():
        rng, disturbed = torch.Generator().manual_seed(0), copy.deepcopy(trained)
        for weight in disturbed.parameters():
            if weight.dim() > 1:
                weight.data += share * weight.std() * torch.randn(weight.shape, generator=rng)
        yield f"noise {share}", disturbed


def main(runs: list[str]) -> None:
    teachers: dict[str, float] = {}
    for number, run in enumerate(map(Path, runs)):
        config = load_config(run / "config.yaml", ["device=cpu", "precision=32-true", "evaluation.num_workers=0"])
        start = run / START_FILE
        experiment = build_experiment(config, "cpu", start if start.exists() else None)
        teacher, info = experiment.teacher, experiment.info
        assert teacher is not None and config.evaluation is not None
        samples = EvaluationSamples(evaluation_dataset(config, config.evaluation))
        labelled = [
            {"image": one["image"][None], "mask": one["mask"][None], "name": [one["name"]]}
            for one in (samples[place] for place in range(0, len(samples), EVERY))
        ]
        score = partial(evaluate_miou, batches=labelled, num_classes=info.num_classes)
        name = str(config.teacher and config.teacher.values())
        if name not in teachers:
            teachers[name] = score(teacher).mIoU
        generator = build_generator(config, teacher)
        assert generator is not None
        generator.load_state_dict(read_checkpoint(checkpoints(run)[-1])["networks"]["generator"])
        images = list(held_out_images(generator.train(), config.image_size, seed=config.seed))
        for what, student in students(run, experiment.trained, noise=number < 1 or len(runs) == 1):
            seen = unshifted(student, teacher, images, config.logit_adjustment)  # type: ignore[union-attr]
            agreed = evaluate_miou(seen, labelled_by(teacher, images), num_classes=info.num_classes)
            found = Score.measured(agreed.to_dict(), network="student", split="generated")
            row = {
                "run": run.parent.name + "/" + run.name if run.name == "student" else run.name,
                "student": what,
                "agreement": found.mIoU,
                "pixels": found.aAcc,
                "constant": found.constant,
                "kept": score(student).mIoU / teachers[name],
                "teacher": teachers[name],
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
