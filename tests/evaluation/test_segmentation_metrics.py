"""The metrics against a restatement of MMSegmentation's arithmetic."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_seg.evaluation import ConfusionMatrix, metrics_from_confusion


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
