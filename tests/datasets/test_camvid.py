"""CamVid's two layouts, its colours and its split."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfad_seg.common.errors import InputError
from dfad_seg.datasets import CAMVID, build_dataset
from dfad_seg.datasets.camvid import SPLIT_SIZES, standard_split
from dfad_seg.datasets.colours import CAMVID_COLOURS

FRAMES = ("0001TP_006690", "0001TP_008550", "0006R0_f00930", "0016E5_07961", "Seq05VD_f00000")


ORIGINAL_COLOURS = {name: colour for names in CAMVID_COLOURS.values() for name, colour in names.items()}


def reference_label(name: str) -> int:
    group = next(group for group, members in CAMVID_COLOURS.items() if name in members)
    return 255 if group == "void" else CAMVID.classes.index(group)


@pytest.fixture
def original(tmp_path: Path) -> Path:
    images, masks = tmp_path / "701_StillsRaw_full", tmp_path / "LabeledApproved_full"
    images.mkdir()
    masks.mkdir()
    colours = np.array(list(ORIGINAL_COLOURS.values()), np.uint8).reshape(4, 8, 3)
    for number, name in enumerate(FRAMES):
        Image.new("RGB", (8, 4), (number, 0, 0)).save(images / f"{name}.png")
        Image.fromarray(np.roll(colours, number, axis=1)).save(masks / f"{name}_L.png")
    return tmp_path


def test_every_original_class_has_one_place() -> None:
    assert len(ORIGINAL_COLOURS) == sum(len(names) for names in CAMVID_COLOURS.values()) == 32
    assert len(set(ORIGINAL_COLOURS.values())) == 32
    assert tuple(CAMVID_COLOURS) == (*CAMVID.classes, "void") and list(CAMVID_COLOURS["void"]) == ["Void"]


def test_original_release_is_split_and_grouped(original: Path) -> None:
    names = {split: build_dataset("camvid", original, split).names for split in SPLIT_SIZES}
    assert names == {
        "train": ["0001TP_006690", "0006R0_f00930"],
        "val": ["0016E5_07961"],
        "test": ["0001TP_008550", "Seq05VD_f00000"],
    }
    sample = build_dataset("camvid", original, "val")[0]
    expected = np.array([reference_label(name) for name in ORIGINAL_COLOURS]).reshape(4, 8)
    np.testing.assert_array_equal(sample["mask"].numpy(), np.roll(expected, 3, axis=1))
    assert float(sample["image"][0, 0, 0]) == pytest.approx(3 / 255)


def test_split_lists_come_first(original: Path) -> None:
    (original / "train.txt").write_text("Seq05VD_f00000\n\n0016E5_07961\n")
    assert build_dataset("camvid", original, "train").names == ["Seq05VD_f00000", "0016E5_07961"]
    (original / "train.txt").write_text("Seq05VD_f00030\n")
    with pytest.raises(InputError, match="train.txt names 'Seq05VD_f00030'"):
        build_dataset("camvid", original, "train")
    (original / "train.txt").write_text("0016E5_07961\n0016E5_07961\n")
    with pytest.raises(InputError, match="twice"):
        build_dataset("camvid", original, "train")


def test_faults_of_the_original_release(original: Path) -> None:
    masks = original / "LabeledApproved_full"
    dataset = build_dataset("camvid", original, "val")
    for colour in ((64, 128, 65), (255, 255, 255), (192, 192, 192), (0, 0, 1), (0, 64, 0)):
        pixels = np.full((4, 8, 3), (128, 0, 0), np.uint8)
        pixels[2, 5] = colour
        Image.fromarray(pixels).save(masks / "0016E5_07961_L.png")
        with pytest.raises(InputError, match=re.escape(f"07961_L.png has colour {colour} at row 2, column 5")):
            dataset[0]
    Image.new("L", (8, 4)).save(masks / "0016E5_07961_L.png")
    with pytest.raises(InputError, match="a mask of colours"):
        dataset[0]
    (masks / "0016E5_07961_L.png").unlink()
    with pytest.raises(InputError, match="no mask in .*LabeledApproved_full for image .*0016E5_07961.png"):
        build_dataset("camvid", original, "val")
    Image.new("RGB", (8, 4)).save(original / "701_StillsRaw_full" / "holiday.png")
    with pytest.raises(InputError, match="'holiday' is not a frame name"):
        build_dataset("camvid", original, "train")


def test_standard_split_reproduces_the_published_lists(shared_data: Path) -> None:
    root = shared_data / "CamVid"
    published = {path.stem: split for split in SPLIT_SIZES for path in (root / f"{split}annot").glob("*.png")}
    assert len(published) == 701
    assert {name: standard_split(name) for name in published} == published


def test_real_camvid(shared_data: Path) -> None:
    root = shared_data / "CamVid"
    assert {split: len(build_dataset("camvid", root, split)) for split in SPLIT_SIZES} == SPLIT_SIZES
    for split in SPLIT_SIZES:
        dataset = build_dataset("camvid", root, split)
        sample = dataset[len(dataset) // 2]
        assert sample["image"].shape == (3, 360, 480) and sample["mask"].shape == (360, 480)
        raw = np.array(Image.open(dataset.mask_path(len(dataset) // 2)))
        np.testing.assert_array_equal(sample["mask"].numpy() == 255, raw == 11)
        # The sky of these daylight and dusk scenes lies above the road.
        rows = {label: np.nonzero(raw == label)[0].mean() for label in (0, 3)}
        assert rows[0] < rows[3]
