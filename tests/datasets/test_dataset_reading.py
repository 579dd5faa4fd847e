"""Samples of a data set, and what is said of folders and files that do not fit together."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shared import save_image

from dfad_seg.common.errors import InputError
from dfad_seg.datasets import MetaInfo, build_dataset


def random_pair(seed: int, height: int = 6, width: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, rng.integers(0, 12, (height, width), dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(3):
        for folder, pixels in zip(("train", "trainannot"), random_pair(number), strict=True):
            save_image(tmp_path / folder / f"b{number}.png", pixels)
    return tmp_path


def test_sample_holds_rgb_in_unit_range_and_void_as_ignored(root: Path) -> None:
    dataset = build_dataset("camvid", root, "train")
    image, mask = random_pair(1)
    sample = dataset[1]
    assert sample["image"].dtype == torch.float32 and sample["mask"].dtype == torch.int64
    np.testing.assert_allclose(sample["image"].numpy(), image.transpose(2, 0, 1) / 255.0, rtol=1e-6)
    np.testing.assert_array_equal(sample["mask"].numpy(), np.where(mask == 11, 255, mask))
    assert (sample["name"], sample["index"]) == ("b1", 1)
    assert dataset.names == ["b0", "b1", "b2"] and len(dataset) == 3
    assert dataset.image_path(2).name == "b2.png" and dataset.mask_path(2).parent.name == "trainannot"


def test_transform_gets_arrays_and_the_seed_of_the_key(root: Path) -> None:
    seen = []

    def transform(image: np.ndarray, mask: np.ndarray, seed: int | None) -> tuple[np.ndarray, np.ndarray]:
        seen.append((image.dtype, image.shape, mask.dtype, int(mask.max()), seed))
        return image[:, ::-1], mask[:, ::-1]

    dataset = build_dataset("camvid", root, "train", transform=transform)
    plain, flipped = build_dataset("camvid", root, "train")[0], dataset[0, 42]
    assert torch.equal(flipped["image"], plain["image"].flip(-1))
    assert torch.equal(flipped["mask"], plain["mask"].flip(-1))
    dataset[0]
    assert seen == [(np.uint8, (6, 9, 3), np.uint8, 255, 42), (np.uint8, (6, 9, 3), np.uint8, 255, None)]


def test_a_bad_file_is_one_line_that_names_it(root: Path) -> None:
    dataset, mask = build_dataset("camvid", root, "train"), root / "trainannot" / "b0.png"
    (root / "train" / "b1.png").write_bytes(b"hello")
    for index, spoil, message in (
        (0, lambda: Image.new("L", (9, 7)).save(mask), "b0.png .*9x7.*9x6"),
        (0, lambda: Image.new("L", (9, 6), 12).save(mask), "trainannot/b0.png holds label 12.*0-10"),
        (0, lambda: mask.unlink(), "trainannot/b0.png.*No such file"),
        (1, lambda: None, "train/b1.png .*not a readable image.*5 bytes"),
    ):
        spoil()
        with pytest.raises(InputError, match=message):
            dataset[index]


def test_faults_of_folders(root: Path) -> None:
    for change, place, split, message in (
        (lambda: None, root / "trian", "train", "no data set folder at .*trian. Did you mean 'train'"),
        (lambda: None, root / "no" / "where", "train", "There is no .*/no either. .* holds train, trainannot"),
        (lambda: None, root, "trian", "unknown CamVid split 'trian'.*Did you mean 'train'"),
        (lambda: None, root, "val", "no image folder at .*val.* holds train, trainannot"),
        ((root / "val").mkdir, root, "val", "image folder .*val holds no"),
        (lambda: save_image(root / "val" / "x.png", np.zeros((4, 4, 3))), root, "val", "no mask folder at .*valannot"),
        ((root / "trainannot" / "b1.png").unlink, root, "train", "no mask in .*trainannot for image .*b1.png"),
    ):
        change()
        with pytest.raises(InputError, match=message):
            build_dataset("camvid", place, split)


@pytest.mark.parametrize("names, says", [((), "1 to 255"), (("a" * 201,), "201 characters"), ("abcd" * 64, "1 to 255")])
def test_classes_are_few_and_their_names_short(names: Sequence[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        MetaInfo(tuple(names), ((0, 0, 0),) * len(names))
