"""Augmentation: settled by its seed, image and mask moved together, padding ignored."""

import pickle
from typing import Any

import numpy as np

from dfad_seg.datasets import EvalTransform, TrainingData, TrainTransform, draw_scene


def train_transform(crop_size: tuple[int, int], **options: Any) -> TrainTransform:
    return TrainTransform(TrainingData(**options), crop_size)


def labelled(height: int = 40, width: int = 56) -> tuple[np.ndarray, np.ndarray]:
    """An image whose three channels are functions of place, and a mask that is channel 0 over 20."""
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([rows * 5, columns * 4, rows + columns], axis=-1).astype(np.uint8)
    return image, (rows * 5 // 20).astype(np.uint8)


def test_a_seed_settles_everything() -> None:
    image, mask = draw_scene(0, 0, (72, 96))
    options = {"crop_size": (48, 64), "short_side": 60, "scale": (0.7, 1.6), "color_jitter": 0.4}
    one, two = train_transform(**options), pickle.loads(pickle.dumps(train_transform(**options)))
    first = [one(image, mask, seed) for seed in range(6)]
    np.random.seed(1)
    second = [two(image, mask, seed) for seed in reversed(range(6))][::-1]
    for (a, b), (c, d) in zip(first, second, strict=True):
        assert np.array_equal(a, c) and np.array_equal(b, d)
        assert a.shape == (48, 64, 3) and a.dtype == np.uint8 and b.shape == (48, 64)
    for other in first[1:]:
        assert not np.array_equal(first[0][0], other[0])
    state = np.random.get_state()[1].copy()
    one(image, mask, 0)
    assert np.array_equal(np.random.get_state()[1], state)


def test_crop_and_flip_move_image_and_mask_together() -> None:
    image, mask = labelled()
    transform = train_transform(crop_size=(24, 24))
    flipped, tops, lefts = [], [], []
    for seed in range(120):
        cut, labels = transform(image, mask, seed)
        np.testing.assert_array_equal(labels, cut[..., 0] // 20)
        steps = np.diff(cut[0, :, 1].astype(int))
        assert set(steps) in ({4}, {-4})
        flipped.append(steps[0] < 0)
        tops.append(int(cut[0, 0, 0]) // 5)
        lefts.append(int(cut[..., 1].min()) // 4)
    assert 40 < sum(flipped) < 80
    assert min(tops) == 0 and max(tops) == 16 and min(lefts) == 0 and max(lefts) == 32
    # Independent choices: one stream for all steps, not one seed for each.
    flips = np.array(flipped, float)
    for other in (tops, lefts):
        assert abs(np.corrcoef(flips, other)[0, 1]) < 0.3
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.3
    still = train_transform(crop_size=(24, 24), hflip=False)
    assert all(np.diff(still(image, mask, seed)[0][0, :2, 1].astype(int)) == 4 for seed in range(20))


def test_scaling_keeps_labels_on_their_pixels() -> None:
    image, mask = labelled()
    for seed in range(20):
        cut, labels = train_transform(crop_size=(32, 32), scale=(0.8, 1.7), hflip=False)(image, mask, seed)
        inside = labels != 255
        assert inside.mean() > 0.9
        difference = cut[..., 0][inside].astype(float) - (labels[inside] * 20.0 + 10)
        assert np.abs(difference).max() <= 10 + 6  # half a label's range, one row of interpolation
    sizes = {(train_transform(crop_size=(64, 90), scale=(0.6, 1.2))(image, mask, s)[1] != 255).sum() for s in range(9)}
    assert len(sizes) > 5


def test_padding_is_ignored_by_the_mask() -> None:
    image, mask = labelled(20, 30)
    image = np.maximum(image, 1)
    padded, labels = train_transform(crop_size=(32, 48))(image, mask, 0)
    assert padded.shape == (32, 48, 3)
    np.testing.assert_array_equal(labels == 255, padded[..., 1] == 0)
    assert (labels != 255).sum() == 20 * 30


def test_eval_resize_takes_the_pixel_at_the_centre() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (36, 48, 3), dtype=np.uint8)
    mask = rng.integers(0, 11, (36, 48), dtype=np.uint8)
    small, labels = EvalTransform(short_side=12)(image, mask, None)
    np.testing.assert_array_equal(labels, mask[1::3, 1::3])
    means = image.reshape(12, 3, 16, 3, 3).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 0.51
    large, labels = EvalTransform(short_side=72)(image, mask)
    np.testing.assert_array_equal(labels, mask.repeat(2, 0).repeat(2, 1))
    assert large.shape == (72, 96, 3)
