"""The picture of generated images with both networks' labels."""

from __future__ import annotations

import cv2
import torch

from dfad_seg.recipes.pictures import write_generated

CLASSES = ("road", "car", "sky")
PALETTE = ((128, 64, 128), (64, 0, 130), (10, 200, 30))


def test_images_stand_above_what_the_networks_predict(tmp_path):
    images = torch.zeros(3, 3, 60, 100).bfloat16()
    images[:, 1] = torch.tensor([0.0, 0.2, 1.0])[:, None, None]
    teacher = torch.tensor([0, 1, 0]).view(3, 1, 1).expand(3, 60, 100)
    student = torch.tensor([0, 0, 1]).view(3, 1, 1).expand(3, 60, 100)
    write_generated(tmp_path / "a.png", images, teacher, student, title="step 5", classes=CLASSES, palette=PALETTE)
    picture = cv2.imread(str(tmp_path / "a.png"))[..., ::-1]

    def pixel(row, column):
        """Tiles of 120 x 200, twice the size, eight apart; above each row a line of 24 and a margin of 8."""
        return tuple(picture[32 + row * 152 + 60, 8 + column * 208 + 100].tolist())

    assert [pixel(0, column) for column in range(3)] == [(0, 0, 0), (0, 51, 0), (0, 255, 0)]
    assert [pixel(1, column) for column in range(3)] == [PALETTE[0], PALETTE[1], PALETTE[0]]
    assert [pixel(2, column) for column in range(3)] == [PALETTE[0], PALETTE[0], PALETTE[1]]
    below = {tuple(colour) for colour in picture[32 + 3 * 152 - 24 :].reshape(-1, 3).tolist()}
    assert PALETTE[0] in below and PALETTE[1] in below and PALETTE[2] not in below
