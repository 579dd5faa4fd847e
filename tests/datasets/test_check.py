"""A check of a whole data set: counts, faults, values that cannot be what the classes say, photos that are turned."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from shared import save_image
from test_prepare import VOC, voc_files

from dfad_seg.cli import main
from dfad_seg.common.errors import InputError
from dfad_seg.datasets import build_dataset
from dfad_seg.datasets.check import inspect_dataset, label_warnings
from dfad_seg.recipes.evaluate import evaluate

TWO = {"img_dir": "i", "ann_dir": "m", "classes": ["ground", "crack"]}
THREE = TWO | {"classes": ["ground", "crack", "hole"]}


def write(root: Path, *masks: list[int]) -> Path:
    for number, row in enumerate(masks):
        save_image(root / "i" / f"{number}.jpg", np.zeros((6, len(row), 3)))
        save_image(root / "m" / f"{number}.png", np.tile(row, (6, 1)))
    return root


LIES = {
    "0 and 255": (TWO, [[0, 0, 0, 255]] * 3, "3 of 3 masks hold nothing but 0 and the ignored value 255", "{255: 1}"),
    "0 and 255 in one of the files": (TWO, [[0, 1, 1, 1], [0, 0, 0, 255]], "1 of 2 masks hold", "{255: 1}"),
    "one class": (TWO | {"classes": ["crack"]}, [[0, 0, 255, 255]], "1 of 1 masks hold nothing but 0", "{255: 1}"),
    "0, 1 and 255 of three": (THREE, [[0, 1, 0, 255]] * 2, "class 'hole' never occurs in 2 masks, and 25", "{255: 2}"),
    "255 alone": (TWO, [[255] * 4], "100.0% of the pixels of 1 masks are ignored", "{255: 0}"),
}  # fmt: skip
HONEST = {
    "two classes, no object in one image": (TWO, [[0, 1, 0, 255], [0, 0, 0, 255]]),
    "two classes": (TWO, [[0, 1, 1, 0]]),
    "255 mapped": (TWO | {"label_map": {255: 1}}, [[0, 0, 255, 255]]),
    "a rare class and a thin border": (THREE, [[0] * 30 + [1] * 30 + [255] * 2]),
    "all three": (THREE, [[0, 1, 255, 255], [0, 2, 255, 255]]),
}


@pytest.mark.parametrize("kind", LIES)
def test_a_class_that_is_taken_for_ignored(tmp_path: Path, kind: str) -> None:
    options, masks, found, cure = LIES[kind]
    root = write(tmp_path, *masks)
    (warning,) = label_warnings(build_dataset("folders", root, "all", **options))
    (problem,) = inspect_dataset("folders", root, options=options).problems
    for text in (warning, problem):
        assert found in text and f"label_map: {cure}" in text and "What is ignored is not scored" in text


@pytest.mark.parametrize("kind", HONEST)
def test_sets_that_are_in_order(tmp_path: Path, kind: str) -> None:
    options, masks = HONEST[kind]
    root = write(tmp_path, *masks)
    assert label_warnings(build_dataset("folders", root, "all", **options)) == []
    assert inspect_dataset("folders", root, options=options).problems == []


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
@pytest.mark.parametrize("upright", [True, False])
def test_a_turned_photo_is_read_as_its_mask_was_drawn(tmp_path: Path, orientation: int, upright: bool) -> None:
    """A mask's own size tells, but not for a mirrored photo or one that stands on its head."""
    rows, columns = np.mgrid[0:6, 0:8]
    stored = np.dstack([rows * 30, columns * 20, rows * 0]).astype(np.uint8)
    tags = Image.Exif()
    tags[274] = orientation
    (tmp_path / "i").mkdir()
    Image.fromarray(stored).save(tmp_path / "i" / "0.png", exif=tags)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "i" / "0.png")))
    truth = shown if upright else stored
    save_image(tmp_path / "m" / "0.png", truth[..., 0] // 30 % 2)
    dataset = build_dataset("folders", tmp_path, "all", **TWO, img_suffix=".png")
    if orientation in (2, 3):
        with pytest.raises(InputError, match=f"0.png has EXIF orientation {orientation}: viewers show it turned"):
            dataset.read(0)
    else:
        image, mask = dataset.read(0)
        np.testing.assert_array_equal(image, truth)
        np.testing.assert_array_equal(mask, image[..., 0] // 30 % 2)


def test_an_evaluation_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network that never finds the object, on masks that never say where it is, scores as if it were perfect."""

    class NothingEver(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.stack([images[:, 0] * 0 + 1, images[:, 0] * 0], 1)

    dataset = build_dataset("folders", write(tmp_path, [0, 0, 0, 255]), "all", **TWO)
    assert evaluate(dataset, NothingEver(), device="cpu", num_workers=0).mIoU == 1.0
    error = capsys.readouterr().err
    assert "warning: the data set at" in error and "label_map: {255: 1}" in error


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    for name, data in voc_files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_a_report_counts_sizes_and_pixels(voc: Path) -> None:
    pixels = np.zeros((4, 8), np.uint8)
    pixels[0] = 255
    save_image(voc / VOC / "JPEGImages" / "a.jpg", np.zeros((4, 8, 3)))
    for name, mask in (("a", pixels), ("b", np.ones((4, 6), np.uint8)), ("c", np.full((4, 6), 2, np.uint8))):
        save_image(voc / VOC / "SegmentationClass" / f"{name}.png", mask)
    found = inspect_dataset("voc", voc, any_count=True)
    assert found.problems == [] and found.counts == {"train": 2, "val": 1, "trainval": 3}
    assert found.sizes == {(4, 8): 1, (4, 6): 2}  # the images of trainval are not read again
    sizes, classes = found.lines()
    assert sizes == "images read: 2 of 6x4, 1 of 8x4"
    assert "background 30.00%, aeroplane 30.00%" in classes and classes.endswith("ignored 10.00%")
    assert sum(inspect_dataset("voc", voc, any_count=True, sample=1).sizes.values()) == 2  # a of train, c of val


def test_all_faults_are_reported_together(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = voc / VOC / "SegmentationClass"
    save_image(masks / "a.png", np.full((4, 6), 99))
    (masks / "c.png").write_bytes(b"no")
    lists = voc / VOC / "ImageSets" / "Segmentation"
    (lists / "trainval.txt").write_text("z\n")
    assert main(["prepare", "check", "--type", "voc", "--root", str(voc)]) == 2
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == f"{voc}: 2 train, 1 val images"
    error = captured.err[captured.err.index("error: ") :]
    assert error.startswith("error: 5 problems:\n") and "Traceback" not in error
    for part in ("trainval.txt names 'z'", "'train' has 2 images; 1464", "'val' has 1 images", "label 99", "c.png"):
        assert part in error
