"""Inference modes against plain loops: windows, scales and flips."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import python, rng

from dfad_seg.evaluation import Inference, predict
from dfad_seg.evaluation.inference import scores_of


def local(stride=1):
    """A network whose answer depends on the neighbourhood and on the window's border."""
    weight = torch.randn(4, 3, 3, 3, generator=rng(1))
    return lambda images: F.conv2d(images, weight, padding=1, stride=stride)


def windows_by_hand(network, images, crop, stride):
    """Logits of sliding windows, window by window into whole arrays."""
    n, _, height, width = images.shape
    crop_h, crop_w = crop
    rows = max(height - crop_h + stride[0] - 1, 0) // stride[0] + 1
    columns = max(width - crop_w + stride[1] - 1, 0) // stride[1] + 1
    total, count = torch.zeros(n, 4, height, width), torch.zeros(height, width)
    for row in range(rows):
        for column in range(columns):
            bottom, right = min(row * stride[0] + crop_h, height), min(column * stride[1] + crop_w, width)
            top, left = max(bottom - crop_h, 0), max(right - crop_w, 0)
            total[:, :, top:bottom, left:right] += network(images[:, :, top:bottom, left:right])
            count[top:bottom, left:right] += 1
    assert (count > 0).all()
    return total / count


def pictures(size, n=2, seed=0):
    return torch.rand(n, 3, *size, generator=rng(seed))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_windows_are_those_of_the_loop_bit_for_bit(data):
    size = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    crop = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    stride = tuple(data.draw(st.integers(1, side)) for side in crop)
    coarse = data.draw(st.booleans())  # half the resolution: each window's logits are enlarged to the window
    network, images = local(stride=1 + coarse), pictures(size)
    mode = Inference(crop_size=crop, crop_stride=stride)
    fine = lambda x: F.interpolate(network(x), x.shape[-2:], mode="bilinear")  # noqa: E731
    with torch.no_grad():
        expected = windows_by_hand(fine if coarse else network, images, crop, stride)
        assert torch.equal(scores_of(network, images, images.shape[-2:], mode), expected)
        assert torch.equal(predict(network, images, size, mode).long(), expected.argmax(1))


@pytest.mark.parametrize("crop", [None, (6, 7)])
@pytest.mark.parametrize("size", [(11, 15), (10, 13)])
def test_scales_and_flips_average_the_softmax(crop, size):
    network, images = local(), pictures((10, 13))
    mode = Inference(crop_size=crop, scales=(0.5, 1.0, 1.75), flip=True)
    total = np.zeros((2, 4, *size))
    with torch.no_grad():
        for scale in (0.5, 1.0, 1.75):
            target = (int(10 * scale + 0.5), int(13 * scale + 0.5))
            scaled = images if scale == 1 else F.interpolate(images, target, mode="bilinear")
            for flip in (False, True):
                x = scaled.flip(3) if flip else scaled
                logits = network(x) if crop is None else windows_by_hand(network, x, crop, (4, 4))
                logits = F.interpolate(logits.flip(3) if flip else logits, size, mode="bilinear").double()
                exps = np.exp(logits.numpy())
                total += exps / exps.sum(1, keepdims=True)
        labels, scores = predict(network, images, size, mode), scores_of(network, images, size, mode)
    assert np.allclose(scores.numpy(), total / 6, atol=1e-6)
    assert torch.allclose(scores.sum(1), torch.ones(2, *size))
    assert np.array_equal(labels.numpy(), scores.argmax(1).numpy())


MEASURED = """
import resource, sys, numpy as np, torch
from PIL import Image
from dfad_seg.datasets import build_dataset
from dfad_seg.recipes.evaluate import evaluate
def peak_of(height, width, **mode):
    for suffix, shape in ((".png", (height, width)), (".jpg", (height, width, 3))):
        Image.fromarray(np.zeros(shape, np.uint8)).save(f"{sys.argv[1]}/a{suffix}")
    data = build_dataset("folders", sys.argv[1], "all", img_dir=".", ann_dir=".", classes=list("abcdefghijk"))
    how = {"device": "cpu", "num_workers": 0, "precision": "fp32", "crop_size": (128, 256)}
    evaluate(data, torch.nn.Conv2d(3, 11, 1), **how, **mode)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
all_of_it = {"flip": True, "show_dir": sys.argv[1], "scales": (0.5, 1.0)}
before = peak_of(600, 1500, **all_of_it)  # what first calls alone take
print(peak_of(4000, 1500) - before, peak_of(4000, 1500, **all_of_it) - before)
"""


def test_sliding_windows_need_memory_for_a_row_of_them_whatever_else_is_asked_for(tmp_path):
    printed = python("-c", MEASURED, tmp_path)
    # Decoded and in Pillow, an image has 7 bytes per pixel, its mask 1; all logits have 44.
    assert all(int(more) < 24 * 4000 * 1500 for more in printed.split()), printed
