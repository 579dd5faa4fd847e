"""Pascal VOC 2012: layout, palette and masks; NYUv2: pairs by number, and codes that are labels plus one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shared import save_image

from dfad_seg.common.errors import InputError
from dfad_seg.common.palette import bit_palette
from dfad_seg.datasets import NYUV2_13, VOC, Voc, build_dataset
from dfad_seg.datasets.check import inspect_dataset

# Entries of the palette as the VOC development kit documents them.
KNOWN_COLOURS = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}


def palette_png(path: Path, mask: np.ndarray) -> None:
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette([value for colour in bit_palette(256) for value in colour])
    assert image.mode == "P"
    image.save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A VOCdevkit with a, b in train, c in val, a-c in trainval, and SBD masks of a, d."""
    voc = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    codes = np.array([*range(21), 255])
    for name in "abcd":
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(voc / "JPEGImages" / f"{name}.jpg")
        folder = "SegmentationClassAug" if name == "d" else "SegmentationClass"
        palette_png(voc / folder / f"{name}.png", rng.choice(codes, (6, 8)))
    Image.fromarray(np.full((6, 8), 9, np.uint8)).save(voc / "SegmentationClassAug" / "a.png")
    for split, names in (("train", "ab"), ("val", "c"), ("trainval", "abc"), ("train_aug", "ad")):
        (voc / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n\n")
    return tmp_path


def test_the_palette_is_the_official_one() -> None:
    palette = bit_palette(256)
    assert {index: palette[index] for index in KNOWN_COLOURS} == KNOWN_COLOURS
    assert len(set(palette)) == 256 and VOC.palette == palette[:21] and VOC.num_classes == 21
    assert list(VOC.classes[1:]) == sorted(VOC.classes[1:])  # VOC numbers its classes by the alphabet


@pytest.mark.parametrize("place", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_splits_from_any_of_the_three_roots(root: Path, place: str) -> None:
    found = {split: build_dataset("voc", root / place, split).names for split in Voc.splits}
    assert found == {"train": ["a", "b"], "val": ["c"], "trainval": ["a", "b", "c"], "train_aug": ["a", "d"]}


def test_masks_are_indices_and_255_is_ignored(root: Path) -> None:
    dataset = build_dataset("voc", root, "train")
    with Image.open(dataset.mask_path(0)) as image:
        expected = np.asarray(image)
    sample = dataset[0]
    np.testing.assert_array_equal(sample["mask"].numpy(), expected)
    assert 255 in expected and sample["mask"].shape == (6, 8) and dataset.ids == ["a", "b"]
    # The same mask with a palette that a tool made of its colours.
    Image.fromarray(np.array(bit_palette(256), np.uint8)[expected]).quantize(22).save(dataset.mask_path(0))
    np.testing.assert_array_equal(dataset[0]["mask"].numpy(), expected)


def test_sbd_masks_and_both_forms_of_its_list(root: Path) -> None:
    assert build_dataset("voc", root, "train_aug")[0]["mask"].unique().tolist() == [9]
    assert build_dataset("voc", root, "train")[0]["mask"].unique().tolist() != [9]
    listing = root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "train_aug.txt"
    listing.write_text("".join(f"/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png\n" for n in "da"))
    assert build_dataset("voc", root, "train_aug").names == ["d", "a"]


def in_split_file(text: str) -> Callable[[Path], object]:
    return lambda voc: (voc / "ImageSets" / "Segmentation" / "train.txt").write_text(text)


FAULTS = {
    "a label beyond the classes": (
        lambda voc: palette_png(voc / "SegmentationClass" / "a.png", np.full((6, 8), 21)),
        "a.png holds label 21; labels of Voc are 0-20, ignored 255",
    ),
    "an empty split": (in_split_file("\n \n"), "split file .*train.txt is empty"),
    "an id twice": (in_split_file("a\nb\na\n"), "train.txt names 'a' twice"),
    "a way out": (in_split_file("../../secret\n"), "'../../secret', which is not a file below"),
    "a null": (in_split_file("a\0b\n"), "which is not a file below"),
    "an image without a mask": (in_split_file("d\n"), "no mask in .*SegmentationClass for image .*d.jpg"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_files_are_one_clear_line(root: Path, fault: str) -> None:
    spoil, message = FAULTS[fault]
    spoil(root / "VOCdevkit" / "VOC2012")
    with pytest.raises(InputError, match=message) as caught:
        build_dataset("voc", root, "train")[0]
    assert "\n" not in str(caught.value)


def write(root: Path, split: str, number: int, code: int = 1) -> None:
    mask = np.tile(np.arange(14), (3, 1))
    mask[0, 0] = code
    save_image(root / split / f"nyu_rgb_{number:04d}.png", np.full((3, 14, 3), number))
    save_image(root / f"{split}_labels_13" / f"new_nyu_class13_{number:04d}.png", mask)


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
