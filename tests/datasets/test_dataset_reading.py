"""Reading image and mask files: values, layouts of pixels, and one clear line for every kind of bad file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfad_seg.common.errors import InputError
from dfad_seg.datasets import CAMVID, CamVid, MetaInfo, build_dataset


def write_pair(root: Path, name: str, image: np.ndarray, mask: np.ndarray, suffix: str = ".png") -> None:
    for folder in ("train", "trainannot"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / "train" / f"{name}{suffix}")
    Image.fromarray(mask).save(root / "trainannot" / f"{name}.png")


def random_pair(seed: int, height: int = 6, width: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, rng.integers(0, 12, (height, width), dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(3):
        write_pair(tmp_path, f"b{number}", *random_pair(number))
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


def test_palette_mask_gives_indices_not_colours(root: Path) -> None:
    image, mask = random_pair(7)
    write_pair(root, "p", image, mask)
    indexed = Image.fromarray(mask).convert("L")
    indexed.putpalette([200, 100, 50] * 256)
    assert indexed.mode == "P"
    indexed.save(root / "trainannot" / "p.png")
    sample = build_dataset("camvid", root, "train")[3]
    np.testing.assert_array_equal(sample["mask"].numpy(), np.where(mask == 11, 255, mask))


def test_jpeg_images_and_grey_images_are_read(root: Path) -> None:
    flat = np.full((8, 8, 3), (10, 200, 90), np.uint8)
    write_pair(root, "j", flat, np.zeros((8, 8), np.uint8), suffix=".JPG")
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(root / "train" / "g.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "trainannot" / "g.png")
    dataset = build_dataset("camvid", root, "train")
    jpeg = dataset[dataset.names.index("j")]["image"]
    assert torch.allclose(jpeg[:, 4, 4] * 255, torch.tensor([10.0, 200.0, 90.0]), atol=4)
    grey = dataset[dataset.names.index("g")]["image"]
    assert torch.equal(grey * 255, torch.full((3, 8, 8), 77.0))


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
    shape = (6, 9, 3)
    assert seen == [(np.uint8, shape, np.uint8, 255, 42), (np.uint8, shape, np.uint8, 255, None)]


def test_a_mask_without_an_image_is_left_out(root: Path) -> None:
    (root / "train" / "b1.png").unlink()
    assert build_dataset("camvid", root, "train").names == ["b0", "b2"]


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    body = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FAULTS = {
    "mask of another size": (
        lambda root: Image.new("L", (9, 7)).save(root / "trainannot" / "b0.png"),
        ["b0.png", "9x7", "9x6"],
    ),
    "label outside": (
        lambda root: Image.new("L", (9, 6), 12).save(root / "trainannot" / "b0.png"),
        ["trainannot/b0.png", "label 12", "0-10"],
    ),
    "RGB mask": (
        lambda root: Image.new("RGB", (9, 6)).save(root / "trainannot" / "b0.png"),
        ["trainannot/b0.png", "RGB", "index mask"],
    ),
    "16-bit mask": (
        lambda root: Image.fromarray(np.zeros((6, 9), np.uint16)).save(root / "trainannot" / "b0.png"),
        ["trainannot/b0.png", "16-bit samples"],
    ),
    "damaged image": (lambda root: cut_in_half(root / "train" / "b0.png"), ["train/b0.png", "damaged"]),
    "damaged mask": (lambda root: cut_in_half(root / "trainannot" / "b0.png"), ["trainannot/b0.png"]),
    "no image at all": (
        lambda root: (root / "train" / "b0.png").write_bytes(b"hello"),
        ["train/b0.png", "not a readable image", "5 bytes"],
    ),
    "empty file": (lambda root: (root / "train" / "b0.png").write_bytes(b""), ["train/b0.png", "0 bytes"]),
    "image of 90 million pixels": (
        lambda root: (root / "train" / "b0.png").write_bytes(png_header(10_000, 9_000)),
        ["train/b0.png", "million pixels"],
    ),
    "image of 10 billion pixels": (
        lambda root: (root / "train" / "b0.png").write_bytes(png_header(100_000, 100_000)),
        ["train/b0.png", "million pixels"],
    ),
    "file gone": (lambda root: (root / "train" / "b0.png").unlink(), ["train/b0.png", "No such file"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_file_is_one_line_that_names_it(root: Path, fault: str) -> None:
    spoil, expected = FAULTS[fault]
    dataset = build_dataset("camvid", root, "train")
    spoil(root)
    with pytest.raises(InputError) as caught:
        dataset[0]
    message = str(caught.value)
    assert "\n" not in message
    for text in expected:
        assert text in message


def test_faults_of_folders(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data set folder at .*nowhere"):
        build_dataset("camvid", root / "nowhere", "train")
    with pytest.raises(InputError, match="unknown split 'trian'.*Did you mean 'train'"):
        build_dataset("camvid", root, "trian")
    with pytest.raises(InputError, match="neither 'val/' .* nor '701_StillsRaw_full/'"):
        build_dataset("camvid", root, "val")
    (root / "val").mkdir()
    with pytest.raises(InputError, match="image folder .*val holds no"):
        build_dataset("camvid", root, "val")
    Image.new("RGB", (4, 4)).save(root / "val" / "x.png")
    with pytest.raises(InputError, match="no mask folder at .*valannot"):
        build_dataset("camvid", root, "val")
    (root / "trainannot" / "b1.png").unlink()
    with pytest.raises(InputError, match="no mask in .*trainannot for image .*b1.png"):
        build_dataset("camvid", root, "train")


def test_two_images_of_one_name_are_refused(root: Path) -> None:
    Image.new("RGB", (9, 6)).save(root / "train" / "b0.jpg")
    with pytest.raises(InputError, match="two images named 'b0'"):
        build_dataset("camvid", root, "train")


def test_build_dataset_knows_its_types(root: Path) -> None:
    assert isinstance(build_dataset("camvid", root, "train"), CamVid)
    with pytest.raises(InputError, match="unknown data set type 'street_scene'.*'street_scenes'"):
        build_dataset("street_scene", root, "train")


def test_metainfo() -> None:
    assert CAMVID.num_classes == 11 and CAMVID.ignore_index == 255
    assert CAMVID.classes[:3] == ("sky", "building", "pole") and CAMVID.classes[-1] == "bicyclist"
    assert len(set(CAMVID.palette)) == 11
    black = (0, 0, 0)
    with pytest.raises(InputError, match="2 classes but 1 palette"):
        MetaInfo(("a", "b"), (black,))
    with pytest.raises(InputError, match="twice: a"):
        MetaInfo(("a", "a"), (black, black))
    with pytest.raises(InputError, match="class 'b'"):
        MetaInfo(("a", "b"), (black, (0, 256, 0)))
    with pytest.raises(InputError, match="ignore_index is 1"):
        MetaInfo(("a", "b"), (black, black), ignore_index=1)
    with pytest.raises(InputError, match="at least one class"):
        MetaInfo((), ())
