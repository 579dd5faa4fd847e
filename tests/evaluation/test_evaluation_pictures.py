"""Pictures of evaluated images: the colours at known places."""

import cv2
import numpy as np
import torch

from dfad_seg.evaluation.pictures import BLACK, CORRECT, WRONG, write_comparison_picture

CLASSES = ("road", "car", "sky")
PALETTE = ((128, 64, 128), (64, 0, 130), (10, 200, 30))


def read(path):
    return cv2.imread(str(path))[..., ::-1]


def colours(picture):
    return {tuple(colour) for colour in np.unique(picture.reshape(-1, 3), axis=0).tolist()}


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
    # The legend names what occurs.
    assert {*PALETTE, BLACK, WRONG} <= colours(picture[8 + 24 + 240 + 4 :])
