"""The report on a whole data set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_prepare import VOC, voc_files

from dfad_seg.cli import main
from dfad_seg.datasets.check import inspect_dataset


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    for name, data in voc_files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_a_report_counts_sizes_and_pixels(voc: Path) -> None:
    pixels = np.zeros((4, 8), np.uint8)
    pixels[0] = 255
    Image.new("RGB", (8, 4)).save(voc / VOC / "JPEGImages" / "a.jpg")
    for name, mask in (("a", pixels), ("b", np.ones((4, 6), np.uint8)), ("c", np.full((4, 6), 2, np.uint8))):
        Image.fromarray(mask).save(voc / VOC / "SegmentationClass" / f"{name}.png")
    found = inspect_dataset("voc", voc, any_count=True)
    assert found.problems == [] and found.counts == {"train": 2, "val": 1, "trainval": 3}
    assert found.sizes == {(4, 8): 1, (4, 6): 2}  # the images of trainval are not read again
    sizes, classes = found.lines()
    assert sizes == "images read: 2 of 6x4, 1 of 8x4"
    assert "background 30.00%, aeroplane 30.00%" in classes and classes.endswith("ignored 10.00%")
    assert sum(inspect_dataset("voc", voc, any_count=True, sample=1).sizes.values()) == 2  # a of train, c of val


def test_all_faults_are_reported_together(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = voc / VOC / "SegmentationClass"
    Image.fromarray(np.full((4, 6), 99, np.uint8)).save(masks / "a.png")
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
    (lists / "val.txt").unlink()
    assert any("val.txt" in problem for problem in inspect_dataset("voc", voc, any_count=True).problems)
