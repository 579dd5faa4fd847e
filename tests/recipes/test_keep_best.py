"""The best network by evaluation is kept only on request, under its own name."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dfad_seg.distill import Hooks
from dfad_seg.recipes.best import keep_best
from dfad_seg.segmentors import Segmentor, build_segmentor, read_segmentor_file, save_segmentor


def network(value: float) -> Segmentor:
    built = build_segmentor("smp", num_classes=2, arch="FPN", encoder_name="mobilenet_v2", encoder_depth=3)
    with torch.no_grad():
        for parameter in built.network.parameters():
            parameter.fill_(value)
    return built


def save(path: Path, kept: nn.Module, extra: dict) -> None:
    assert isinstance(kept, Segmentor)
    save_segmentor(path, kept, extra=extra)


def play(run: Path, scores: dict[int, float], built: Segmentor) -> Hooks:
    reached = [0]
    hooks = Hooks(evaluate=lambda _: {"val/mIoU": scores[reached[0]]}, advance=lambda i: reached.__setitem__(0, i))
    keep_best(hooks, run=run, split="val", start=0, save=save)
    assert hooks.evaluate is not None
    for iteration in scores:
        hooks.advance(iteration)
        assert hooks.evaluate(built) == {"val/mIoU": scores[iteration]}
    return hooks


def test_the_highest_score_is_kept_and_labelled(tmp_path):
    built = network(0.5)
    play(tmp_path, {10: 0.2, 20: 0.4, 30: 0.3, 40: float("nan"), 50: 0.4}, built)
    assert [path.name for path in tmp_path.iterdir()] == ["best_val.pt"]
    extra = read_segmentor_file(tmp_path / "best_val.pt")["extra"]
    assert extra == {"selected_on": "val", "mIoU": pytest.approx(0.4), "iteration": 20}
    # A resumed run must do better than what is there.
    play(tmp_path, {60: 0.39}, built)
    assert read_segmentor_file(tmp_path / "best_val.pt")["extra"]["iteration"] == 20
    play(tmp_path, {70: 0.41}, built)
    assert read_segmentor_file(tmp_path / "best_val.pt")["extra"]["iteration"] == 70
