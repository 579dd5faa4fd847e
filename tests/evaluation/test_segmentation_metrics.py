"""The metrics against hand-worked numbers and against a restatement of MMSegmentation's arithmetic."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

from dfad_seg.common.errors import InputError
from dfad_seg.evaluation import ConfusionMatrix, metrics_from_confusion


def test_subset_miou_by_hand():
    metrics = metrics_from_confusion(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), ["road", "car", "sky"])
    assert metrics.subset_miou(["road"]) == 3 / 4 and metrics.subset_miou(["car", "sky"]) == 4 / 5
    assert metrics.subset_miou(metrics.classes) == metrics.mIoU and np.isnan(metrics.subset_miou(["sky"]))
    with pytest.raises(InputError, match="Did you mean 'road'"):
        metrics.subset_miou(["raod"])


def mmseg_arithmetic(prediction, target, num_classes, ignore_index=255):
    """What MMSegmentation's IoUMetric does: label histograms over the pixels that are not ignored."""
    keep = target != ignore_index
    prediction, target = prediction[keep], target[keep]

    def areas(labels):
        return np.array([(labels == label).sum() for label in range(num_classes)], dtype=np.float64)

    intersect, predicted, truth = areas(prediction[prediction == target]), areas(prediction), areas(target)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = intersect / (predicted + truth - intersect)
        acc = intersect / truth
    return intersect.sum() / truth.sum(), np.nanmean(iou), np.nanmean(acc), iou, acc


def metrics_of(prediction, target, num_classes):
    matrix = ConfusionMatrix(num_classes)
    matrix.update(torch.as_tensor(prediction), torch.as_tensor(target))
    return metrics_from_confusion(matrix.compute(), [f"class {label}" for label in range(num_classes)])


@settings(max_examples=60, deadline=None)
@given(
    pixels=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from([0, 1, 2, 3, 4, 255])), min_size=1, max_size=60
    ).filter(lambda pixels: any(truth != 255 for _, truth in pixels))
)
def test_equals_mmseg_arithmetic(pixels):
    prediction, target = (np.array(values) for values in zip(*pixels, strict=True))
    metrics = metrics_of(prediction, target, 5)
    a_acc, m_iou, m_acc, iou, acc = mmseg_arithmetic(prediction, target, 5)
    np.testing.assert_allclose([metrics.aAcc, metrics.mIoU, metrics.mAcc], [a_acc, m_iou, m_acc], rtol=1e-12)
    np.testing.assert_allclose(metrics.iou, iou, rtol=1e-12)
    np.testing.assert_allclose(metrics.acc, acc, rtol=1e-12)


def test_equals_torchmetrics_when_all_classes_occur():
    rng = torch.Generator().manual_seed(1)
    prediction = torch.randint(0, 6, (3, 31, 29), generator=rng)
    target = torch.where(torch.rand(prediction.shape, generator=rng) < 0.6, prediction, prediction.flip(0))
    target[:, :5] = 255
    metrics = metrics_of(prediction, target, 6)
    options = {"num_classes": 6, "ignore_index": 255}
    iou = multiclass_jaccard_index(prediction, target, average="none", **options)
    acc = multiclass_accuracy(prediction, target, average="none", **options)
    assert metrics.iou == pytest.approx(iou.tolist(), abs=1e-6)
    assert metrics.acc == pytest.approx(acc.tolist(), abs=1e-6)
    micro = multiclass_accuracy(prediction, target, average="micro", **options)
    assert metrics.aAcc == pytest.approx(micro.item(), abs=1e-6)


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(InputError, match="nothing to evaluate"):
        metrics_of([[0, 1]], [[255, 255]], 2)


def test_json_has_no_nan():
    metrics = metrics_of([0, 1, 1, 0], [0, 1, 0, 255], 3)
    values = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert values["IoU"] == [1 / 2, 1 / 2, None] and values["mIoU"] == metrics.mIoU
    assert values["support"] == [2, 1, 0] and values["ignored"] == 0
    assert metrics_from_confusion(torch.eye(2).long(), ["a", "b"], ignored=7).to_dict()["ignored"] == 7
