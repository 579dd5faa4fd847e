"""The picture of generated images with both networks' labels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from dfad_seg.common.errors import InputError
from dfad_seg.evaluation.pictures import text_width
from dfad_seg.runs.pictures import generated_grid

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
