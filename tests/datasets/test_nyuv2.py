"""NYUv2: small files in the formats of the official ones, and the two folder layouts."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dfad_seg.common.errors import InputError
from dfad_seg.datasets import NYUV2_13, build_dataset
from dfad_seg.datasets.check import check_dataset
from dfad_seg.datasets.nyuv2_files import FORTY_TO_13, LABELLED, MAPPING_13, MAPPING_40, SPLITS
from dfad_seg.datasets.prepare import prepare_nyuv2

h5py = pytest.importorskip("h5py", reason="needs the extra nyuv2")
savemat = pytest.importorskip("scipy.io", reason="needs the extra nyuv2").savemat

N, H, W = 5, 6, 8
FORTY = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refridgerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
)  # fmt: skip


def cells(names: list[str] | tuple[str, ...]) -> np.ndarray:
    """A MATLAB cell array of strings, 1 x n."""
    array = np.empty((1, len(names)), object)
    array[0] = names
    return array


class Official:
    """A folder with the official files, and what they say in MATLAB's own axes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(5)
        self.images = rng.integers(0, 256, (H, W, 3, N), dtype=np.uint8)  # MATLAB: H x W x 3 x N
        self.labels = rng.integers(0, 895, (H, W, N), dtype=np.uint16)
        self.labels[0, :2, :] = [[0], [894]]
        self.to_forty = rng.integers(1, 41, 894)
        # MATLAB 7.3 files are HDF5 behind a header of 512 bytes, with the axes reversed.
        with h5py.File(folder / LABELLED, "w", userblock_size=512) as file:
            for name, values in (("images", self.images), ("labels", self.labels)):
                reversed_axes = np.ascontiguousarray(values.transpose())
                chunk = (1, *reversed_axes.shape[1:])
                file.create_dataset(name, data=reversed_axes, chunks=chunk, compression="gzip")
            file.create_dataset("depths", data=np.zeros((N, W, H), np.float32))
        with open(folder / LABELLED, "r+b") as handle:
            handle.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
        raw_names = cells([f"thing {i}" for i in range(894)])
        savemat(
            folder / MAPPING_40,
            {"mapClass": self.to_forty[None].astype(np.uint8), "className": cells(FORTY), "allClassName": raw_names},
        )
        savemat(
            folder / MAPPING_13,
            {"classMapping13": {"labels13": np.array([FORTY_TO_13], float), "class": cells(NYUV2_13.classes)}},
        )
        savemat(folder / SPLITS, {"trainNdxs": np.array([[3], [1], [5]]), "testNdxs": np.array([[4], [2]])})

    def expected(self, number: int) -> np.ndarray:
        """The labels 0-12 and 255 of image `number` (from 1), pixel by pixel."""
        result = np.full((H, W), 255)
        for row, column in np.ndindex(H, W):
            raw = int(self.labels[row, column, number - 1])
            if raw:
                result[row, column] = FORTY_TO_13[int(self.to_forty[raw - 1]) - 1] - 1
        return result


@pytest.fixture
def official(tmp_path: Path) -> Official:
    return Official(tmp_path / "official")


def test_the_mapping_by_its_names() -> None:
    to_13 = {name: NYUV2_13.classes[code - 1] for name, code in zip(FORTY, FORTY_TO_13, strict=True)}
    same = {name: name for name in ("bed", "books", "ceiling", "chair", "floor", "picture", "sofa", "table", "wall")}
    assert {name: to_13[name] for name in same} == same
    assert to_13["television"] == "tv" and to_13["blinds"] == to_13["curtain"] == to_13["window"] == "window"
    assert to_13["door"] == "wall" and to_13["desk"] == "table" and to_13["floor mat"] == "floor"
    assert to_13["cabinet"] == to_13["refridgerator"] == to_13["otherfurniture"] == "furniture"
    assert to_13["lamp"] == to_13["person"] == to_13["otherprop"] == to_13["shower curtain"] == "objects"
    assert NYUV2_13.file_ids == tuple(range(1, 14))


def test_official_files(official: Official) -> None:
    train, test = (build_dataset("nyuv2", official.folder, split) for split in ("train", "test"))
    assert train.names == ["0003", "0001", "0005"] and test.names == ["0004", "0002"]
    for dataset in (train, test):
        for index, name in enumerate(dataset.names):
            image, mask = dataset.read(index)
            np.testing.assert_array_equal(image, official.images[..., int(name) - 1])
            np.testing.assert_array_equal(mask, official.expected(int(name)))
    assert test[1]["image"].shape == (3, H, W) and test[1]["size"] == (H, W)
    with pytest.raises(InputError, match="unknown split 'val' of NyuV2.*Known: train, test"):
        build_dataset("nyuv2", official.folder, "val")


def test_without_the_13_class_file_the_built_in_mapping_is_used(official: Official) -> None:
    before = build_dataset("nyuv2", official.folder, "train").read(0)[1]
    (official.folder / MAPPING_13).unlink()
    np.testing.assert_array_equal(build_dataset("nyuv2", official.folder, "train").read(0)[1], before)
    other = np.ones((1, 40))
    savemat(official.folder / MAPPING_13, {"classMapping13": {"labels13": other, "class": cells(["x"])}})
    changed = build_dataset("nyuv2", official.folder, "train").read(0)[1]
    np.testing.assert_array_equal(changed, np.where(before == 255, 255, 0))


def test_loader_workers_read_the_official_file(official: Official) -> None:
    from dfad_seg.datasets import eval_loader

    dataset = build_dataset("nyuv2", official.folder, "train")
    dataset.read(0)  # a handle that were left open would be shared with the workers
    masks = [mask.numpy() for batch in eval_loader(dataset, batch_size=1, num_workers=2) for mask in batch["mask"]]
    for name, mask in zip(dataset.names, masks, strict=True):
        np.testing.assert_array_equal(mask, official.expected(int(name)))


def test_conversion_to_images(official: Official, tmp_path: Path) -> None:
    root = tmp_path / "converted"
    assert prepare_nyuv2(root, source=official.folder, any_count=True) == {"train": 3, "test": 2}
    for split in ("train", "test"):
        theirs, ours = build_dataset("nyuv2", official.folder, split), build_dataset("nyuv2", root, split)
        assert ours.names == theirs.names
        for index in range(len(ours)):
            for converted, original in zip(ours.read(index), theirs.read(index), strict=True):
                np.testing.assert_array_equal(converted, original)
    with Image.open(root / "label13" / "0001.png") as mask:
        assert mask.mode == "P" and set(np.unique(np.asarray(mask))) <= set(range(14))
    assert prepare_nyuv2(root, any_count=True) == {"train": 3, "test": 2}
    with pytest.raises(InputError, match="split 'train' has 3 images; 795 are expected"):
        prepare_nyuv2(root)
    with pytest.raises(InputError, match="holds nyu_depth_v2_labeled.mat itself"):
        prepare_nyuv2(official.folder, source=official.folder)


def test_the_published_folders_are_paired_by_number(official: Official, tmp_path: Path) -> None:
    converted, root = tmp_path / "converted", tmp_path / "published"
    prepare_nyuv2(converted, source=official.folder, any_count=True)
    for split, numbers in (("train", (1, 3, 5)), ("test", (2, 4))):
        for folder in (split, f"{split}_labels_13"):
            (root / folder).mkdir(parents=True)
        for number in numbers:
            name = f"{number:04d}.png"
            (converted / "image" / name).rename(root / split / f"nyu_rgb_{name}")
            (converted / "label13" / name).rename(root / f"{split}_labels_13" / f"new_nyu_class13_{name}")
    dataset = build_dataset("nyuv2", root, "train")
    assert dataset.names == ["0001", "0003", "0005"]
    np.testing.assert_array_equal(dataset.read(1)[1], official.expected(3))
    assert check_dataset("nyuv2", root, any_count=True) == {"train": 3, "test": 2}
    (root / "test_labels_13" / "new_nyu_class13_0002.png").unlink()
    with pytest.raises(InputError, match="no mask in .*test_labels_13 for image .*nyu_rgb_0002.png"):
        build_dataset("nyuv2", root, "test")
    (root / "train" / "nyu_rgb_0001.png").rename(root / "train" / "first.png")
    with pytest.raises(InputError, match="first.png: the files of NYUv2 end with different image numbers"):
        build_dataset("nyuv2", root, "train")


@pytest.mark.parametrize("code", [14, 255])
def test_other_codings_are_refused(tmp_path: Path, code: int) -> None:
    """Some copies have 0-12 and 255: read as 1-13, every class would be the one before it."""
    for folder in ("image", "label13"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (4, 3)).save(tmp_path / "image" / "0001.png")
    Image.new("L", (4, 3), code).save(tmp_path / "label13" / "0001.png")
    (tmp_path / "train.txt").write_text("0001\n")
    with pytest.raises(InputError, match=f"0001.png holds label {code}; NYUv2's 13-class files hold 1-13"):
        build_dataset("nyuv2", tmp_path, "train")[0]


def rewritten(name: str, change: Any) -> Any:
    def spoil(folder: Path) -> None:
        with h5py.File(folder / LABELLED, "r+") as file:
            values = change(file[name][()])
            del file[name]
            if values is not None:
                file[name] = values

    return spoil


FAULTS = {
    "no labels": (rewritten("labels", lambda _: None), "labeled.mat holds no 'labels'"),
    "not HDF5": (lambda folder: (folder / LABELLED).write_bytes(b"MATLAB 5.0"), r"not a MATLAB 7.3 \(HDF5\) file"),
    "axes in MATLAB's order": (rewritten("images", lambda v: v.transpose()), r"images of shape \(6, 8, 3, 5\)"),
    "a raw class beyond": (rewritten("labels", lambda v: v + 2), "not among the 894 classes of classMapping40.mat"),
    "float images": (rewritten("images", lambda v: v / 255), "images of type float64; uint8 is needed"),
    "no mapping": (lambda folder: (folder / MAPPING_40).unlink(), "no NYUv2 file at .*classMapping40.mat"),
    "mapping beyond": (
        lambda folder: savemat(folder / MAPPING_40, {"mapClass": [[1, 41]]}),
        "classMapping40.mat: the mapping needs whole numbers from 0 to 40",
    ),
    "other mapping": (
        lambda folder: savemat(folder / MAPPING_13, {"classMapping13": {"class": cells(["x"])}}),
        "must have one field with the 40 numbers",
    ),
    "damaged mapping": (lambda folder: (folder / MAPPING_13).write_bytes(b"x" * 200), "not a readable MATLAB file"),
    "no splits": (lambda folder: (folder / SPLITS).unlink(), "no NYUv2 file at .*splits.mat"),
    "numbers beyond": (
        lambda folder: savemat(folder / SPLITS, {"trainNdxs": [[6]], "testNdxs": [[1]]}),
        "trainNdxs needs whole numbers from 1 to 5",
    ),
    "number 0": (
        lambda folder: savemat(folder / SPLITS, {"trainNdxs": [[0]], "testNdxs": [[1]]}),
        "trainNdxs needs whole numbers from 1 to 5",
    ),
    "no test images": (
        lambda folder: savemat(folder / SPLITS, {"trainNdxs": [[1]], "testNdxs": np.empty((0, 1))}),
        "testNdxs needs whole numbers",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_official_files(official: Official, fault: str) -> None:
    spoil, message = FAULTS[fault]
    spoil(official.folder)
    with pytest.raises(InputError, match=message) as caught:
        build_dataset("nyuv2", official.folder, "train")[0]
    assert "\n" not in str(caught.value)


def test_an_empty_folder_says_what_could_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no NYUv2 at .*with splits.mat, nor image/ with label13/, nor train/"):
        build_dataset("nyuv2", tmp_path, "train")


@pytest.mark.parametrize("package", ["h5py", "scipy"])
def test_a_missing_package_is_named_with_its_command(
    official: Official, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    real = importlib.import_module

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith(package):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(InputError, match=rf"need the package {package}.*pip install 'dfad-seg\[nyuv2\]'"):
        build_dataset("nyuv2", official.folder, "train")
