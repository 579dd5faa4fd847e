"""Pictures of evaluated images: the colours at known places."""

import cv2
import numpy as np
import pytest
import torch

from dfad_seg.common.errors import InputError
from dfad_seg.evaluation.pictures import BLACK, CORRECT, WRONG, colourise, write_comparison_picture

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
    assert colourise(np.array([[-1, -255]]), PALETTE).sum() == 0
    for wrong in (np.zeros((2, 2)), np.zeros((1, 2, 2), int)):
        with pytest.raises(InputError, match="label map"):
            colourise(wrong, PALETTE)


def test_panels_show_image_truth_prediction_and_errors(tmp_path):
    truth = torch.zeros(60, 80, dtype=torch.uint8)
    truth[:, 40:] = 1
    truth[50:] = 255
    prediction = torch.zeros(60, 80, dtype=torch.int64)
    prediction[:20, 40:] = 2
    image = torch.zeros(3, 60, 80)
    image[0], image[2] = 1.0, 0.5
    found = {"prediction": prediction}
    write_comparison_picture(tmp_path / "a.png", image, truth, found, CLASSES, PALETTE, heights=(240, 1080))
    picture = read(tmp_path / "a.png")

    # Enlarged four times: 240 x 320 panels under a caption line, eight pixels apart.
    def pixel(panel, y, x):
        return tuple(picture[8 + 24 + 4 * y + 2, 8 + panel * (320 + 8) + 4 * x + 2].tolist())

    assert picture.shape[1] == 4 * 320 + 3 * 8 + 2 * 8
    assert pixel(0, 30, 40) == (255, 0, 128)
    assert [pixel(1, 5, 5), pixel(1, 5, 60), pixel(1, 55, 5)] == [PALETTE[0], PALETTE[1], BLACK]
    assert [pixel(2, 5, 5), pixel(2, 5, 60), pixel(2, 30, 60)] == [PALETTE[0], PALETTE[2], PALETTE[0]]
    assert [pixel(3, 5, 5), pixel(3, 5, 60), pixel(3, 30, 60), pixel(3, 55, 60)] == [CORRECT, WRONG, WRONG, BLACK]
    # The borders between panels are white, and the corner pixels of each panel belong to it.
    assert picture[8 + 24, 8 + 320 : 8 + 320 + 8].min() == 255
    assert tuple(picture[8 + 24, 8 + 328]) == PALETTE[0]
    # The legend names what occurs, and text stands above each panel.
    assert {*PALETTE, BLACK, WRONG} <= colours(picture[8 + 24 + 240 + 4 :])
    for panel in range(4):
        assert picture[8 : 8 + 22, 8 + panel * 328 : 8 + panel * 328 + 60].min() < 120
    with pytest.raises(InputError, match="no errors on a truth"):
        write_comparison_picture(tmp_path / "b.png", image, truth[:9], found, CLASSES, PALETTE)


@pytest.mark.parametrize(("height", "shown"), [(40, 160), (160, 160), (480, 240), (1200, 240)])
def test_several_predictions_and_the_last_ones_errors(tmp_path, height, shown):
    width = height * 3 // 2
    truth, teacher, student = (np.full((height, width), label, np.uint8) for label in (0, 1, 2))
    student[: height // 2] = 0
    image = np.full((height, width, 3), 77, np.uint8)
    found = {"teacher": teacher, "student": student}
    write_comparison_picture(tmp_path / "a.png", image, truth, found, CLASSES, PALETTE)
    picture = read(tmp_path / "a.png")
    # Five panels, eight apart, each under a line of 24 pixels; the lower half of the student is wrong.
    panel = shown * 3 // 2
    middles = [8 + place * (panel + 8) + panel // 2 for place in range(5)]
    upper, lower = (picture[8 + 24 + shown * part // 8] for part in (2, 6))
    grey = (77, 77, 77)
    assert [tuple(upper[x].tolist()) for x in middles] == [grey, PALETTE[0], PALETTE[1], PALETTE[0], CORRECT]
    assert [tuple(lower[x].tolist()) for x in middles] == [grey, PALETTE[0], PALETTE[1], PALETTE[2], WRONG]
    assert picture.shape[1] == 16 + 5 * panel + 4 * 8
