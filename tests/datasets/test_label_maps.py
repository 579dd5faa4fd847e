"""Folders of label maps without images."""

import cv2
import numpy as np
import pytest

from dfad_seg.common.errors import InputError
from dfad_seg.datasets.label_maps import read_label_maps


def write_map(path, values):
    cv2.imwrite(str(path), np.asarray(values, dtype=np.uint8))


def test_maps_are_read_in_order_and_foreign_values_are_no_class(tmp_path):
    write_map(tmp_path / "b.png", [[3, 11, 255], [0, 1, 10]])
    write_map(tmp_path / "a.png", [[1, 1, 1], [2, 2, 2]])
    (tmp_path / "notes.txt").write_text("no map")
    maps = read_label_maps(tmp_path, 11)
    assert maps.dtype == np.uint8
    assert maps.tolist() == [[[1, 1, 1], [2, 2, 2]], [[3, 255, 255], [0, 1, 10]]]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "no label map folder at"),
        ({}, "holds no .* files"),
        ({"a": [[1]], "b": [[1, 2]]}, r"must have one size: a\.png is 1x1, b\.png is 2x1"),
        ({"a": [[3, 7]]}, "no pixel of any class: their values are all 3 or higher, and the 3 classes are 0 to 2"),
        ({"a": np.zeros((2, 2, 3))}, "an index mask is needed"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, files, message):
    folder = tmp_path / "maps"
    if files is not None:
        folder.mkdir()
        for name, values in files.items():
            write_map(folder / f"{name}.png", values)
    with pytest.raises(InputError, match=message):
        read_label_maps(folder, 3)


def test_too_many_pixels_are_refused_before_they_are_read(tmp_path, monkeypatch):
    for name in "abc":
        write_map(tmp_path / f"{name}.png", np.zeros((10, 10)))
    monkeypatch.setattr("dfad_seg.datasets.label_maps.MOST_PIXELS", 250)
    with pytest.raises(InputError, match="the 3 label maps in .* are of 10x10 pixels"):
        read_label_maps(tmp_path, 3)
