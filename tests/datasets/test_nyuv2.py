"""NYUv2's folders: pairs by number, and codes that are labels plus one."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfad_seg.common.errors import InputError
from dfad_seg.datasets import NYUV2_13, build_dataset
from dfad_seg.datasets.check import inspect_dataset


def write(root: Path, split: str, number: int, code: int = 1) -> None:
    for folder in (split, f"{split}_labels_13"):
        (root / folder).mkdir(exist_ok=True)
    Image.new("RGB", (14, 3), (number, 0, 0)).save(root / split / f"nyu_rgb_{number:04d}.png")
    mask = np.tile(np.arange(14, dtype=np.uint8), (3, 1))
    mask[0, 0] = code
    Image.fromarray(mask).save(root / f"{split}_labels_13" / f"new_nyu_class13_{number:04d}.png")


def test_folders_are_paired_by_number(tmp_path: Path) -> None:
    for split, numbers in (("train", (1, 3, 5)), ("test", (2, 4))):
        for number in numbers:
            write(tmp_path, split, number)
    dataset = build_dataset("nyuv2", tmp_path, "train")
    assert dataset.names == ["0001", "0003", "0005"] and NYUV2_13.file_ids == tuple(range(1, 14))
    image, mask = dataset.read(1)
    assert image[0, 0, 0] == 3 and mask[0, 0] == 0 and mask[1].tolist() == [255, *range(13)]
    assert inspect_dataset("nyuv2", tmp_path, any_count=True).counts == {"train": 3, "test": 2}

    (tmp_path / "train" / "nyu_rgb_0001.png").rename(tmp_path / "train" / "first.png")
    with pytest.raises(InputError, match="first.png: the files of NYUv2 end with different image numbers"):
        build_dataset("nyuv2", tmp_path, "train")


@pytest.mark.parametrize("code", [14, 255])
def test_other_codings_are_refused(tmp_path: Path, code: int) -> None:
    """Some copies have 0-12 and 255: read as 1-13, every class would be the one before it."""
    write(tmp_path, "train", 1, code)
    with pytest.raises(InputError, match=f"0001.png holds label {code}; NYUv2's 13-class files hold 1-13"):
        build_dataset("nyuv2", tmp_path, "train")[0]
