"""Counts against pixel-by-pixel counting and torchmetrics, metrics against a restatement of MMSegmentation's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_confusion_matrix

from dfad_seg.common.errors import InputError
from dfad_seg.evaluation import ConfusionMatrix, metrics


def counted_by_hand(prediction, target, num_classes, ignore_index=255):
    matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
    for predicted, truth in zip(np.ravel(prediction), np.ravel(target), strict=True):
        if truth != ignore_index:
            matrix[truth, predicted] += 1
    return matrix


def compute(prediction, target, num_classes=3, **options):
    matrix = ConfusionMatrix(num_classes, **options)
    matrix.update(torch.as_tensor(prediction), torch.as_tensor(target))
    return matrix.compute()


@pytest.mark.parametrize("num_classes", [1, 2, 11, 21, 254])
def test_equals_counting_by_hand_and_torchmetrics(num_classes):
    prediction, target = torch.randint(0, num_classes, (2, 2, 23, 17))
    target[torch.rand(target.shape) < 0.2] = 255
    counts = compute(prediction, target, num_classes)
    assert np.array_equal(counts.numpy(), counted_by_hand(prediction, target, num_classes))
    if num_classes > 1:  # torchmetrics knows no single class
        reference = multiclass_confusion_matrix(prediction, target, num_classes, ignore_index=255)
        assert torch.equal(counts, reference)


def test_unsigned_255_is_not_minus_one():
    with pytest.raises(InputError, match="truth label 255"):
        compute([0], torch.tensor([255], dtype=torch.uint8), ignore_index=-1)


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        ([0, 3], [0, 0], "predicted label 3 is no class \\(0 to 2\\)"),
        ([0, 0], [0, 3], "truth label 3 is no class \\(0 to 2\\)"),
        ([0, 0], [0, 254], "truth label 254"),
        ([0, 0], [0, 2**32 + 1], "truth label 4294967297"),
        ([7, 0], [255, 0], "predicted label 7"),
    ],
)
def test_labels_out_of_range_are_named(prediction, target, message):
    with pytest.raises(InputError, match=message):
        compute(prediction, target)


def mmseg_arithmetic(prediction, target, num_classes):
    """What MMSegmentation's IoUMetric does: label histograms over the pixels that are not ignored."""
    prediction, target = prediction[target != 255], target[target != 255]

    def areas(labels):
        return np.array([(labels == label).sum() for label in range(num_classes)], dtype=np.float64)

    intersect, predicted, truth = areas(prediction[prediction == target]), areas(prediction), areas(target)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = intersect / (predicted + truth - intersect)
        acc = intersect / truth
    return intersect.sum() / truth.sum(), np.nanmean(iou), np.nanmean(acc), iou, acc


labels = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 2, 3, 255])), max_size=40)


@settings(max_examples=60, deadline=None)
@given(pixels=labels, cut=st.integers(0, 40), at_once=st.integers(1, 50))
def test_equals_mmseg_arithmetic_however_it_is_batched(pixels, cut, at_once):
    prediction, target = np.array(pixels, dtype=np.int64).reshape(-1, 2).T
    matrix = ConfusionMatrix(4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_AT_ONCE", at_once)
        matrix.update(torch.tensor(prediction[:cut]), torch.tensor(target[:cut]))
        matrix.update(torch.tensor(prediction[cut:]), torch.tensor(target[cut:]))
    assert np.array_equal(matrix.compute().numpy(), counted_by_hand(prediction, target, 4))
    assert matrix.ignored == (target == 255).sum()
    if matrix.ignored < len(pixels):
        found = metrics.metrics_from_confusion(matrix.compute(), "abcd")
        a_acc, m_iou, m_acc, iou, acc = mmseg_arithmetic(prediction, target, 4)
        np.testing.assert_allclose([found.aAcc, found.mIoU, found.mAcc], [a_acc, m_iou, m_acc], rtol=1e-12)
        np.testing.assert_allclose(found.iou, iou, rtol=1e-12)
        np.testing.assert_allclose(found.acc, acc, rtol=1e-12)
