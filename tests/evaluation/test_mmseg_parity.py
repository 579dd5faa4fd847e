"""The counts and metrics of MMSegmentation's own IoUMetric, to the last digit, where it is installed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dfad_seg.evaluation import ConfusionMatrix, Inference, metrics_from_confusion
from dfad_seg.evaluation.inference import scores_of

mmseg_metrics = pytest.importorskip("mmseg.evaluation", reason="MMSegmentation is not installed; see make test-mmseg")

CLASSES = tuple("abcdefg")


def images(case):
    rng = np.random.default_rng(3)
    number = len(CLASSES)
    sizes = [(23, 31), (1, 1), (40, 7), (64, 64)]
    for size in sizes:
        prediction, truth = rng.integers(0, number, size), rng.choice([*range(number), 255], size)
        if case == "absent classes":
            prediction, truth = prediction % 3, np.where(truth == 255, 255, truth % 2)
        if case == "an ignored image" and size == (40, 7):
            truth = np.full(size, 255)
        if case == "mostly right":
            prediction = np.where((truth == 255) | (rng.random(size) < 0.2), prediction, truth)
        yield prediction, truth
    if case == "one class":
        yield np.full((5, 5), number - 1), np.full((5, 5), number - 1)


@pytest.mark.parametrize("case", ["random", "absent classes", "an ignored image", "mostly right", "one class"])
def test_parity_with_the_real_ioumetric(case):
    metric = mmseg_metrics.IoUMetric(ignore_index=255, iou_metrics=["mIoU", "mDice"])
    metric.dataset_meta = {"classes": CLASSES}
    ours = ConfusionMatrix(len(CLASSES))
    for prediction, truth in images(case):
        p, t = torch.from_numpy(prediction), torch.from_numpy(truth)
        ours.update(p, t)
        metric.process({}, [{"pred_sem_seg": {"data": p[None]}, "gt_sem_seg": {"data": t[None]}}])
    areas = [sum(parts) for parts in zip(*metric.results, strict=True)]
    counts = ours.compute()
    assert torch.equal(areas[0].long(), counts.diagonal())
    assert torch.equal(areas[2].long(), counts.sum(0)) and torch.equal(areas[3].long(), counts.sum(1))

    metrics = metrics_from_confusion(counts, CLASSES)
    # mmseg divides in float32 where its sums of areas are float32, so its own sums are divided in float64 here too.
    exact = metric.total_area_to_metrics(*(area.double() for area in areas), ["mIoU", "mDice"], None, 1)
    assert np.array_equal(np.array(metrics.iou), exact["IoU"], equal_nan=True)
    assert np.array_equal(np.array(metrics.acc), exact["Acc"], equal_nan=True)
    assert metrics.aAcc == exact["aAcc"]
    assert np.allclose(np.array(metrics.dice), exact["Dice"], rtol=1e-15, equal_nan=True)
    summary = metric.compute_metrics(metric.results)
    for name in ("aAcc", "mIoU", "mAcc", "mDice"):
        assert summary[name] == pytest.approx(100 * getattr(metrics, name), abs=0.00501)


@pytest.mark.parametrize(("crop", "stride"), [((8, 8), (5, 5)), ((16, 7), (9, 7)), ((30, 40), (20, 20))])
def test_windows_are_those_of_slide_inference(crop, stride):
    from mmseg.models import EncoderDecoder

    rng = torch.Generator().manual_seed(0)
    images, weight = torch.rand(2, 3, 21, 33, generator=rng), torch.randn(4, 3, 3, 3, generator=rng)

    def network(inputs, metas=None):
        return torch.nn.functional.conv2d(inputs, weight, padding=1)

    model = SimpleNamespace(
        test_cfg=SimpleNamespace(stride=stride, crop_size=crop), out_channels=4, encode_decode=network
    )
    theirs = EncoderDecoder.slide_inference(model, images, [{}, {}])
    mode = Inference(crop_size=crop, crop_stride=stride)
    found = scores_of(network, images, images.shape[-2:], mode)
    assert torch.equal(found, theirs)
