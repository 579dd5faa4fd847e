"""Pictures of a run: the grid of generated images and the curves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from dfad_seg.common.errors import InputError
from dfad_seg.evaluation.pictures import text_width
from dfad_seg.runs.pictures import _series, curves, generated_grid

CLASSES = ("road", "car", "sky")
PALETTE = ((128, 64, 128), (64, 0, 130), (10, 200, 30))


def read(path):
    return cv2.imread(str(path))[..., ::-1]


def has_colour(picture, colour):
    return bool((picture == np.array(colour)).all(axis=-1).any())


def test_grid_has_a_column_for_each_image(tmp_path):
    images = torch.zeros(3, 3, 60, 100)
    images[:, 1] = torch.tensor([0.0, 0.2, 1.0])[:, None, None]
    teacher = torch.tensor([0, 1, 0]).view(3, 1, 1).expand(3, 60, 100)
    student = torch.tensor([0, 0, 1]).view(3, 1, 1).expand(3, 60, 100)
    generated_grid(tmp_path / "grid.png", images, teacher, student, PALETTE, CLASSES, "step 5")
    picture = read(tmp_path / "grid.png")

    # Tiles of 120 x 200 (twice the size), four apart, under the title and a caption line.
    left = 8 + max(map(text_width, ("generated", "teacher", "student"))) + 8
    top = 8 + 24 + 8 + 24
    centres = [
        [tuple(picture[top + row * 124 + 60, left + column * 208 + 100].tolist()) for column in range(3)]
        for row in range(3)
    ]
    assert centres[0] == [(0, 0, 0), (0, 51, 0), (0, 255, 0)]
    assert centres[1] == [PALETTE[0], PALETTE[1], PALETTE[0]]
    assert centres[2] == [PALETTE[0], PALETTE[0], PALETTE[1]]
    assert picture[top, left + 200 : left + 208].min() == 255
    # Row names stand to the left of each row; the legend holds the two classes that occur.
    for row in range(3):
        assert picture[top + row * 124 : top + row * 124 + 120, 8 : left - 8].min() < 120
    legend = picture[top + 3 * 124 :]
    assert has_colour(legend, PALETTE[0]) and has_colour(legend, PALETTE[1])
    assert not has_colour(legend, PALETTE[2])


def test_grid_shows_at_most_limit_images(tmp_path):
    images, labels = torch.rand(5, 3, 120, 50).bfloat16(), torch.zeros(5, 120, 50, dtype=torch.int64)
    widths = []
    for limit in (1, 2, 9):
        generated_grid(tmp_path / "g.png", images, labels, labels, PALETTE, CLASSES, "t", limit=limit)
        widths.append(read(tmp_path / "g.png").shape[1])
    column = max(50, text_width("100 % agree")) + 8
    assert [widths[1] - widths[0], widths[2] - widths[0]] == [column, 4 * column]


@pytest.mark.parametrize(
    ("images", "labels"), [((0, 3, 8, 8), (0, 8, 8)), ((2, 3, 8, 8), (1, 8, 8)), ((2, 3, 8, 8), (2, 4, 4))]
)
def test_grid_refuses_answers_that_do_not_fit(tmp_path, images, labels):
    answers = torch.zeros(labels, dtype=torch.int64)
    with pytest.raises(InputError, match="needs at least one image and answers of shape"):
        generated_grid(tmp_path / "g.png", torch.rand(images), answers, answers, PALETTE, CLASSES, "t")
    assert not (tmp_path / "g.png").exists()


def test_series_are_ordered_finite_and_the_later_record_wins():
    records = [
        {"step": 10, "train/student_loss": 1.0, "val/mIoU": None},
        {"step": 20, "train/student_loss": float("nan"), "note": "text", "done": True},
        {"step": 30, "train/student_loss": 3.0},
        {"step": 20, "train/student_loss": 2.0, "val/mIoU": 0.25},
        {"step": 30, "train/student_loss": 4},
        {"train/student_loss": 99.0},
    ]
    assert _series(records) == {
        "train/student_loss": ([10, 20, 30], [1.0, 2.0, 4.0]),
        "val/mIoU": ([20], [0.25]),
    }


def drawn(path, records, **options):
    curves(path, records, **options)
    return read(path)


def blue(picture):
    """Where matplotlib's first line colour is, as pale or full."""
    red, green, blue = (picture[..., channel].astype(int) for channel in range(3))
    return (blue - red > 60) & (blue > green)


def test_curves_rise_and_fall_with_their_values(tmp_path):
    # Few points are drawn as they are, many as a pale line with its running mean.
    for count in (10, 400):
        for slope in (1, -1):
            records = [{"step": step, "train/student_loss": slope * step / count} for step in range(count)]
            rows, columns = np.nonzero(blue(drawn(tmp_path / "c.png", records)))
            # A picture's rows grow downwards.
            assert np.corrcoef(rows, columns)[0, 1] * slope < -0.99
            assert np.ptp(rows) > 200 and np.ptp(columns) > 900


def test_curves_draw_what_was_recorded(tmp_path):
    records = [
        {
            "step": step,
            "train/student_loss": 1 / (1 + step),
            "train/generator_loss": -1 / (1 + step),
            "train/student_lr": 0.1,
            "train/generator_lr": 0.0,
            "val/mIoU": 0.1,
            "val/ema_mIoU": 0.2,
            "train/entropy": 1.0,
        }
        for step in range(200)
    ]
    full = drawn(tmp_path / "full.png", records)
    single = drawn(tmp_path / "single.png", [{"step": 1, "val/mIoU": 0.1}])
    assert full.shape[0] > 1.8 * single.shape[0]
    halves = [blue(part).any() for half in np.array_split(full, 2) for part in np.array_split(half, 2, axis=1)]
    assert halves == [True] * 4
    with_meters = drawn(tmp_path / "m.png", [record | {"train/student_agreement": 0.5} for record in records])
    assert with_meters.shape[0] > 1.3 * full.shape[0]


@pytest.mark.parametrize("records", [[], [{"step": 1}], [{"step": 1, "train/student_loss": float("inf")}]])
def test_curves_of_nothing_are_still_a_picture(tmp_path, records):
    picture = drawn(tmp_path / "c.png", records)
    assert picture.min() < 200 and not blue(picture).any()
