"""What is said about a student without labels, and runs that are as long as there is time for."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from shared import call_tool, save_image, write_yaml
from torch import nn

from dfad_seg.common.errors import InputError
from dfad_seg.config import parse_config
from dfad_seg.evaluation import evaluate_miou
from dfad_seg.recipes import lengths, quality
from dfad_seg.recipes.lengths import Price, Probe, price, scaled, with_minutes
from dfad_seg.recipes.quality import POINTS, estimate, held_out_error, labelled_by, unshifted
from dfad_seg.recipes.transfer import transfer_images
from dfad_seg.runs import Run
from dfad_seg.runs.records import Score
from dfad_seg.segmentors import build_segmentor, load_segmentor, save_segmentor


class Colours(nn.Module):
    """Three classes whose logits are the image's channels, less what was learnt to lower."""

    num_classes = 3

    def __init__(self, lower=(0, 0, 0)):
        super().__init__()
        self.lower = nn.Parameter(torch.tensor(lower, dtype=torch.float32))

    def forward(self, images):
        return images - self.lower.view(1, 3, 1, 1)


def test_agreement_by_hand():
    # Of 8 pixels the teacher has 4 of a, 3 of b, 1 of c; the second student has c everywhere.
    labels = torch.tensor([[[0, 0, 0, 0], [1, 1, 1, 2]]])
    images = nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    for lower, miou, agreed in (((0, 0, 0), 1.0, 1.0), ((0, 0, -2), 1 / 8 / 3, 1 / 8)):
        batches = labelled_by(Colours(), [{"image": images, "name": ["one"]}])
        found = evaluate_miou(Colours(lower), batches, num_classes=3)
        score = Score.measured(found.to_dict(), network="student", split="generated")
        assert (score.mIoU, score.aAcc) == (pytest.approx(miou), agreed)
        assert score.constant == pytest.approx(4 / 8 / 3)
        assert score.by_chance == pytest.approx((0.5 / 1.5 + 0.375 / 1.625 + 0.125 / 1.875) / 3)


def test_what_logit_adjustment_taught_is_no_disagreement():
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) + torch.tensor([1.0, 0, 0]).view(
        3, 1, 1
    )
    rarely = images.softmax(1).mean((0, 2, 3)).log()
    student = Colours((0.5 * rarely).tolist())
    seen = unshifted(student, Colours(), [{"image": images}], 0.5)
    assert (student(images).argmax(1) != images.argmax(1)).float().mean() > 0.05
    assert (seen(images).argmax(1) == images.argmax(1)).all()


def generated(agreement, support=(4, 3, 1)):
    classes = tuple("abcdefgh"[: len(support)])
    iou = (None,) * len(support)
    return Score(network="student", split="generated", classes=classes, mIoU=agreement, IoU=iou, support=support)


def test_the_estimate_lies_between_what_was_measured(monkeypatch):
    monkeypatch.setattr(quality, "POINTS", ((0.2, 0.3), (0.4, 0.7), (0.5, 0.6), (0.8, 1.1)))
    monkeypatch.setattr(quality, "HELD_OUT", ((0.1, 0.9), (0.3, 0.6), (0.8, 0.9)))  # none, 0.5 and 1 are expected
    monkeypatch.setattr(quality, "LEAST", 0.2)
    assert "only teachers of 8 and more classes" in estimate(generated(0.3), cut=True).reason
    monkeypatch.setattr(quality, "FEWEST", 3)
    found = estimate(generated(0.3), cut=True)
    assert found.kept == pytest.approx(0.5)
    assert (found.low, found.high) == (pytest.approx(0.5 - 0.164), pytest.approx(0.5 + 0.164))
    assert estimate(generated(0.5), cut=True).kept == pytest.approx(0.7)
    assert "below an agreement of 0.2" in estimate(generated(0.19), cut=True).reason
    assert "more than 0.80" in estimate(generated(0.9), cut=True).reason
    assert "too few classes" in estimate(generated(0.5, (8, 0, 0)), cut=True).reason
    assert "only students that were cut" in estimate(generated(0.5), cut=False).reason


def test_the_calibration_in_use():
    assert 0 < held_out_error() < 0.05
    assert [agreed for agreed, _ in POINTS] == sorted(agreed for agreed, _ in POINTS)
    seen = [estimate(generated(agreed, (1,) * 8), cut=True).kept for agreed in (0.05, 0.65)]
    assert seen[0] is None and seen[1] > 0.9


def test_without_any_real_image(world):
    """A data-free run that has no data set at all."""
    values = world.configs["dfad"] | {"generator": {"type": "layout", "width": 4}, "report": "short", "num_classes": 11}
    values = {key: value for key, value in values.items() if key not in ("dataset", "evaluation")}
    config, run = write_yaml(world.folder / "unlabelled.yaml", values), world.folder / "unlabelled_run"
    assert call_tool("train", config, "--work-dir", run) == 0
    assert Run(run).provenance.real_images == ()
    assert load_segmentor(run / "student.pt").classes[-1] == "bicyclist"  # from the teacher
    dataset = ["dataset.type=street_scenes", f"dataset.root={world.data}", "evaluation.num_workers=0"]
    assert call_tool("eval", config, run / "student.pt", "--cfg-options", *dataset) == 0
    # Without labels it reports its agreement.
    summary = Run(run).summary
    (score,) = summary.agreement
    assert score.split == "generated" and sum(score.support) == 64 * 32 * 48
    assert summary.estimate == estimate(score, cut=False) and summary.estimate.kept is None
    page = (run / "report.html").read_text()
    assert page.index("agreement (mIoU), generated images") < page.index("What was distilled")
    assert "mIoU of the best constant prediction" in page


def photos(folder):
    for number in range(6):
        save_image(folder / f"{number}.png", np.random.default_rng(number).integers(0, 256, (48 + number, 64, 3)))
    return folder


def test_images_without_labels_are_compared_and_drawn_and_have_no_miou(world, tmp_path, capsys):
    folders = {"type": "folders", "root": str(tmp_path), "img_suffix": ".png"}
    (photos(tmp_path / "photos") / "another.jpg").write_text("")
    values = world.configs["dfad"] | {"dataset": folders | {"img_dir": "photos"}, "evaluation": {"split": "all"}}
    teacher = build_segmentor("smp", num_classes=11, arch="DeepLabV3Plus", encoder_name="tu-test_resnet")
    save_segmentor(tmp_path / "teacher.pt", teacher)
    saved = {"source": "saved", "checkpoint": str(tmp_path / "teacher.pt")}
    values |= {"teacher": saved, "iterations": 1, "report": "full", "num_classes": 11}
    run = tmp_path / "run"
    assert call_tool("train", write_yaml(tmp_path / "config.yaml", values), "--work-dir", run) == 0
    summary = Run(run).summary
    assert [score.split for score in summary.agreement] == ["generated", "all"] and summary.scores == ()
    assert sum(summary.agreement[1].support) == sum((48 + n) * 64 for n in range(6))
    assert len(summary.examples) == 6 and summary.costs["student"].latency_s > 0
    assert "No real image was read for training" in (run / "report.html").read_text()
    assert call_tool("eval", run) == 2
    assert "1 image files are left out" in (told := capsys.readouterr().err) and "no masks (dataset.ann_dir)" in told


def test_transfer_images_are_trained_on_and_told(world, tmp_path):
    values = world.configs["dfad"] | {"transfer_images": str(photos(tmp_path / "photos")), "report": "short"}
    run = tmp_path / "run"
    assert call_tool("train", write_yaml(tmp_path / "config.yaml", values), "--work-dir", run) == 0
    record = Run(run).provenance
    assert record.real_images_used_for_training and record.real_images[-1].root == values["transfer_images"]
    page = (run / "report.html").read_text()
    assert "Distillation on generated and on real images" in page and "Data-free" not in page.split("</header>")[0]
    assert "Real images were read for training" in page and Run(run).kind == "dfad with transfer images"
    assert any("train/transfer_loss" in line for line in Run(run).records)


def test_transfer_images_are_crops_that_the_rng_alone_decides(tmp_path):
    config = SimpleNamespace(transfer_images=str(photos(tmp_path / "photos")), image_size=(32, 48), student=None)
    config.dataset = config.teacher = None
    draw = transfer_images(config)
    first, again, other = (draw(5, (32, 48), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first.shape == (5, 3, 32, 48) and torch.equal(first, again) and not torch.equal(first, other)
    assert 0 <= first.min() < first.max() <= 1
    # A hospital's: grey, 12 bits in 16, in sub-folders.
    (tmp_path / "grey" / "a").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "grey" / "a" / "scan.tif"), np.full((40, 60), 1024, np.uint16))
    config.transfer_images = str(tmp_path / "grey")
    config.teacher = SimpleNamespace(name="smp", options=SimpleNamespace(in_channels=1))
    with pytest.raises(InputError, match="state which values"):
        transfer_images(config)
    config.dataset = SimpleNamespace(options=SimpleNamespace(img_range=(0, 4096)))
    crops = transfer_images(config)(2, (32, 48), torch.Generator())
    assert crops.shape == (2, 1, 32, 48) and crops.sub(0.25).abs().max() < 1e-6


def long(world, **more):
    values = world.configs["dfad"] | {
        "iterations": 400, "save_every": 50, "preview_every": 0, "ema_decay": 0.98,
        "schedule": {"type": "cosine", "warmup": 40}, "replay": {"size": 200, "steps": 1, "final_steps": 3},
    }  # fmt: skip
    return parse_config(values | more)


def test_all_lengths_follow(world):
    config = scaled(long(world), 0.1)
    assert (config.iterations, config.save_every, config.preview_every) == (40, 5, 0)
    assert (config.schedule.options.warmup, config.replay.size) == (4, 20)
    assert config.ema_decay == pytest.approx(0.8)
    assert scaled(long(world), 1) == long(world)
    short = scaled(long(world), 1e-6)
    assert short.iterations == 1 and short.replay.size >= short.batch_size


def test_lengths_fit_the_time_that_scoring_and_cutting_leave():
    found = Price(seconds=400, choosing=100, scoring=60, peak=2**30)
    for seconds, factor in ((560, 1.0), (310, 0.5), (960, 2.0), (10, 0.01)):
        assert found.factor(seconds) == pytest.approx(factor)
    assert str(found) == "about 8.3 minutes of training, and 1.0 to score; 1.0 GiB of memory"


def test_minutes_and_memory_are_measured(world, monkeypatch, capsys):
    config = long(world)
    found = price(config)
    assert min(found.seconds, found.scoring) > 0 == found.choosing and found.peak > 2**26
    assert capsys.readouterr().out == ""  # the run itself says it
    # Three seconds an iteration with one remembered step, one more each for further ones; these rise from 1 to 3.
    monkeypatch.setattr(lengths, "measured", lambda config, _: Probe(2**30, 2.0 + config.replay.steps))
    steps = [again for _, again in lengths.student_steps(config)]
    assert price(config).seconds == pytest.approx(2 * 400 + sum(steps))
    half = with_minutes(config, price(config).seconds / 60 / 2)
    assert half.iterations == 200
    assert with_minutes(config, 7, half) == half
    path = write_yaml(world.folder / "priced.yaml", world.configs["dfad"])
    monkeypatch.setattr(lengths, "measured", lambda config, _: Probe(2**30, 60.0))
    assert call_tool("train", path, "--minutes", "7", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "iterations: 7" in printed and "about 7.0 minutes of training; 1.0 GiB" in printed
