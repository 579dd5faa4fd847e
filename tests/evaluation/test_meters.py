"""Meters against brute force, the published procedure and torchmetrics."""

import math

import cv2
import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from dfad_seg.evaluation import ImageCounts, Inference, Predicted, evaluate_miou
from dfad_seg.evaluation.meters import Agreement, BoundaryIoU, CalibrationError


def predicted(labels, truth, names=None):
    labels, truth = torch.as_tensor(labels), torch.as_tensor(truth)
    return Predicted(names or [str(i) for i in range(len(labels))], labels, truth)


def blobs(rng, size, classes):
    """Label maps with regions, as segmentations have."""
    coarse = rng.integers(0, classes, (-(-size[0] // 7), -(-size[1] // 7)))
    return coarse.repeat(7, axis=0).repeat(7, axis=1)[: size[0], : size[1]]


def region_as_published(mask, reach):
    """The paper's procedure: a border of one pixel, then erosion by 3x3, `reach` times."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=reach)[1:-1, 1:-1]
    return mask & ~eroded.astype(bool)


@pytest.mark.parametrize(("size", "ratio"), [((20, 24), 0.02), ((33, 17), 0.1), ((1, 1), 0.02), ((40, 30), 0.08)])
def test_boundary_iou_of_each_class(size, ratio):
    rng = np.random.default_rng(4)
    classes, hits, union = 4, np.zeros(4), np.zeros(4)
    meter = BoundaryIoU(classes, ratio=ratio)
    for _ in range(3):
        labels, truth = blobs(rng, size, 3), blobs(rng, size, 3)
        truth = np.where(rng.random(size) < 0.02, 255, truth)
        meter.update(predicted(labels[None], truth[None]))
        reach = max(1, round(ratio * math.hypot(*size)))
        for label in range(classes):
            kept = truth != 255
            first, second = (region_as_published((part == label) & kept, reach) for part in (truth, labels))
            hits[label] += (first & second).sum()
            union[label] += (first | second).sum()
    expected = np.divide(hits, union, out=np.full(4, np.nan), where=union > 0)
    assert np.array_equal(meter.compute(), expected, equal_nan=True)
    assert math.isnan(meter.compute()[3])


@pytest.mark.parametrize("mode", [Inference(), Inference(crop_size=(4, 5)), Inference(flip=True)])
@pytest.mark.parametrize("sharpness", [0.3, 5])
def test_calibration_error_is_that_of_torchmetrics(sharpness, mode):
    rng = torch.Generator().manual_seed(0)
    meter, reference = CalibrationError(), MulticlassCalibrationError(5, n_bins=15, norm="l1", ignore_index=255)
    batches = []
    for size in ((9, 11), (1, 1), (16, 16)):
        images = torch.randn(2, 5, *size, generator=rng)
        truth = torch.randint(0, 5, (2, *size), generator=rng)
        truth[torch.rand(truth.shape, generator=rng) < 0.2] = 255
        batches.append({"image": images, "mask": truth})
        reference.update((sharpness * images).softmax(1), truth)
    evaluate_miou(lambda images: sharpness * images, batches, num_classes=5, inference=mode, meters=[meter])
    assert meter.compute() == pytest.approx(reference.compute().item(), abs=1e-6)
    assert math.isnan(CalibrationError().compute())


def test_agreement_with_a_teacher():
    meter = Agreement(3, lambda seen: torch.tensor([[[0, 1], [2, 2]]]))
    meter.update(predicted([[[0, 1], [2, 0]]], [[[255, 255], [0, 0]]]))  # the truth does not matter
    overall, classes = meter.compute()
    assert overall == 3 / 4 and classes == [1.0, 1.0, 0.5]
    alone = Agreement(2, lambda seen: torch.zeros(1, 1, 2, dtype=torch.uint8))
    alone.update(predicted([[[0, 1]]], [[[0, 0]]]))
    assert alone.compute()[0] == 0.5 and math.isnan(alone.compute()[1][1])


def test_counts_of_images_are_sorted_by_name_and_sum_to_the_whole():
    rng = np.random.default_rng(0)
    labels, truth = rng.integers(0, 3, (4, 5, 6)), rng.choice([0, 1, 2, 255], (4, 5, 6))
    meter = ImageCounts(3)
    meter.update(predicted(labels[:3], truth[:3], names=["c", "a", "d"]))
    meter.update(predicted(labels[3:], truth[3:], names=["b"]))
    counts = meter.compute()
    assert meter.names == ["a", "b", "c", "d"] and counts.shape == (4, 3, 3)
    for place, image in enumerate((1, 3, 0, 2)):
        kept = truth[image] != 255
        for label in range(3):
            t, p = (truth[image] == label) & kept, (labels[image] == label) & kept
            assert counts[place, :, label].tolist() == [(t & p).sum(), t.sum(), p.sum()]
    assert ImageCounts(3).compute().shape == (0, 3, 3)
