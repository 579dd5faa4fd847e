"""Pictures of evaluated images: the colours at known places."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from dfad_seg.common.errors import InputError
from dfad_seg.evaluation import pictures
from dfad_seg.evaluation.pictures import (
    BLACK,
    CORRECT,
    WRONG,
    colourise,
    error_map,
    write_comparison_picture,
    write_evaluation_picture,
)

CLASSES = ("road", "car", "sky")
PALETTE = ((128, 64, 128), (64, 0, 130), (10, 200, 30))


def read(path):
    return cv2.imread(str(path))[..., ::-1]


def colours(picture):
    return {tuple(colour) for colour in np.unique(picture.reshape(-1, 3), axis=0).tolist()}


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.int16])
def test_colourise(kind):
    mask = torch.tensor([[0, 1, 2], [3, 255, 0]]).to(kind)
    picture = colourise(mask, PALETTE)
    assert picture.dtype == np.uint8 and picture.shape == (2, 3, 3)
    assert [tuple(pixel) for pixel in picture[0]] == list(PALETTE)
    assert [tuple(pixel) for pixel in picture[1]] == [BLACK, BLACK, PALETTE[0]]
    assert np.array_equal(colourise(mask.numpy(), PALETTE), picture)


def test_colourise_negative_labels_are_black():
    assert colourise(np.array([[-1, -255]]), PALETTE).sum() == 0


def test_error_map():
    picture = error_map(np.array([[0, 1, 2, 2]]), np.array([[0, 2, 255, 2]]))
    assert [tuple(pixel) for pixel in picture[0]] == [CORRECT, WRONG, BLACK, CORRECT]
    with pytest.raises(InputError, match="error map"):
        error_map(np.zeros((2, 2), int), np.zeros((2, 3), int))


def test_masks_must_be_integer_maps():
    with pytest.raises(InputError, match="label map"):
        colourise(np.zeros((2, 2)), PALETTE)
    with pytest.raises(InputError, match="label map"):
        colourise(np.zeros((1, 2, 2), int), PALETTE)


def test_panels_show_image_truth_prediction_and_errors(tmp_path):
    truth = torch.zeros(60, 80, dtype=torch.int64)
    truth[:, 40:] = 1
    truth[50:] = 255
    prediction = torch.zeros(60, 80, dtype=torch.int64)
    prediction[:20, 40:] = 2
    image = torch.zeros(3, 60, 80)
    image[0], image[2] = 1.0, 0.5
    write_evaluation_picture(tmp_path / "panel.png", image, truth, prediction, CLASSES, PALETTE)
    picture = read(tmp_path / "panel.png")

    # Enlarged four times: 240 x 320 panels under a caption line, eight pixels apart.
    def pixel(panel, y, x):
        return tuple(picture[8 + 24 + 4 * y + 2, 8 + panel * (320 + 8) + 4 * x + 2].tolist())

    assert picture.shape[1] == 4 * 320 + 3 * 8 + 2 * 8
    assert pixel(0, 30, 40) == (255, 0, 128)
    assert [pixel(1, 5, 5), pixel(1, 5, 60), pixel(1, 55, 5)] == [PALETTE[0], PALETTE[1], BLACK]
    assert [pixel(2, 5, 5), pixel(2, 5, 60), pixel(2, 30, 60)] == [PALETTE[0], PALETTE[2], PALETTE[0]]
    assert [pixel(3, 5, 5), pixel(3, 5, 60), pixel(3, 30, 60), pixel(3, 55, 60)] == [
        CORRECT,
        WRONG,
        WRONG,
        BLACK,
    ]
    # The borders between panels are white, and the corner pixels of each panel belong to it.
    assert picture[8 + 24, 8 + 320 : 8 + 320 + 8].min() == 255
    assert tuple(picture[8 + 24, 8 + 328]) == PALETTE[0]
    # The legend names what occurs.
    below = picture[8 + 24 + 240 + 4 :]
    assert {*PALETTE, BLACK, WRONG} <= colours(below)
    # Text was drawn above each panel.
    for panel in range(4):
        assert picture[8 : 8 + 22, 8 + panel * 328 : 8 + panel * 328 + 60].min() < 120


def test_legend_leaves_out_what_does_not_occur(tmp_path):
    mask = np.zeros((240, 100), dtype=np.uint8)
    write_evaluation_picture(tmp_path / "one.png", np.zeros((240, 100, 3), np.uint8), mask, mask, CLASSES, PALETTE)
    below = colours(read(tmp_path / "one.png")[8 + 24 + 240 + 4 :])
    assert PALETTE[0] in below
    assert not below & {PALETTE[1], PALETTE[2], BLACK, WRONG}


def test_large_images_keep_their_size_and_small_ones_grow_by_whole_factors():
    def shape(height, width):
        return pictures.enlarge(np.zeros((height, width, 3), np.uint8), 240).shape[:2]

    assert shape(360, 480) == (360, 480)
    assert shape(240, 10) == (240, 10)
    assert shape(96, 128) == (288, 384)
    assert shape(1, 1) == (240, 240)
    assert shape(2, 3000) == (2, 3000)
    checker = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    grown = pictures.enlarge(checker, 4)
    assert np.array_equal(grown[::2, ::2], checker) and np.array_equal(grown[1::2, 1::2], checker)


def test_an_image_of_another_size_than_its_mask(tmp_path):
    mask = np.zeros((240, 320), dtype=np.int64)
    image = torch.full((3, 120, 160), 0.2)
    write_evaluation_picture(tmp_path / "sizes.png", image, mask, mask, CLASSES, PALETTE)
    assert tuple(read(tmp_path / "sizes.png")[8 + 24 + 239, 8 + 319]) == (51, 51, 51)


def test_narrow_images_and_many_classes_stay_readable(tmp_path):
    """Captions widen narrow panels, and a legend of many classes wraps instead of running out."""
    classes = [f"class number {label}" for label in range(30)]
    palette = [(8 * label, 255 - 8 * label, 7) for label in range(30)]
    mask = np.arange(30).repeat(10)[:, None].repeat(4, axis=1)
    write_evaluation_picture(tmp_path / "many.png", torch.rand(3, 300, 4), mask, mask, classes, palette)
    picture = read(tmp_path / "many.png")
    assert set(palette) <= colours(picture[8 + 24 + 300 + 4 :])


def test_image_values_are_scaled_and_clipped():
    image = torch.tensor([0.0, 1.0, 0.5, 2.0, -1.0, float("nan")]).expand(3, 1, 6)
    assert pictures.as_picture(image)[0, :, 1].tolist() == [0, 255, 128, 255, 0, 0]
    for wrong in (torch.rand(1, 4, 4), torch.rand(2, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.int64)):
        with pytest.raises(InputError, match="an image must be"):
            pictures.as_picture(wrong)


@pytest.mark.parametrize(("height", "shown"), [(40, 160), (160, 160), (480, 240)])
def test_comparison_shows_each_answer_and_the_last_ones_errors(tmp_path, height, shown):
    width = height * 3 // 2
    truth, teacher, student = (np.full((height, width), label) for label in (0, 1, 2))
    student[: height // 2] = 0
    image = np.full((height, width, 3), 77, np.uint8)
    answers = {"teacher": teacher, "student": student}
    write_comparison_picture(tmp_path / "a.png", image, truth, answers, CLASSES, PALETTE)
    picture = read(tmp_path / "a.png")
    # Five panels, eight apart, each under a line of 24 pixels; the lower half of the student is wrong.
    panel = shown * 3 // 2
    middles = [8 + place * (panel + 8) + panel // 2 for place in range(5)]
    upper, lower = (picture[8 + 24 + shown * part // 8] for part in (2, 6))
    grey = (77, 77, 77)
    assert [tuple(upper[x].tolist()) for x in middles] == [grey, PALETTE[0], PALETTE[1], PALETTE[0], CORRECT]
    assert [tuple(lower[x].tolist()) for x in middles] == [grey, PALETTE[0], PALETTE[1], PALETTE[2], WRONG]
    assert picture.shape[1] == 16 + 5 * panel + 4 * 8
