"""Folders in MMSegmentation's layout: which files belong together, and what their values mean."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared import save_image

from dfad_seg.common.errors import InputError
from dfad_seg.datasets import DATASETS, Folders, FoldersOptions, SegmentationDataset, build_dataset
from dfad_seg.datasets.check import label_warnings
from dfad_seg.datasets.folders import label_table

CITY = {
    "img_dir": "leftImg8bit/<split>",
    "ann_dir": "gtFine/<split>",
    "img_suffix": "_leftImg8bit.png",
    "seg_map_suffix": "_gtFine_labelTrainIds.png",
    "classes": ["road", "sidewalk", "building"],
}
PLAIN = {"img_dir": "images", "ann_dir": "masks", "split_file": "<split>.txt", "classes": ["a", "b", "c"]}


def put(root: Path, image: str, mask: str, values: Any = 0) -> None:
    save_image(root / image, np.full((4, 5, 3), 8))
    save_image(root / mask, np.broadcast_to(values, (4, 5)))


def folders(root: Path, split: str, **options: Any) -> SegmentationDataset:
    return build_dataset("folders", root, split, **options)


@pytest.fixture
def city(tmp_path: Path) -> Path:
    for split, town, value in (("train", "ulm", 0), ("train", "aachen", 1), ("val", "bonn", 2)):
        for number in "12":
            name = f"{split}/{town}/{town}_{number}"
            put(tmp_path, f"leftImg8bit/{name}_leftImg8bit.png", f"gtFine/{name}_gtFine_labelTrainIds.png", value)
    put(tmp_path, "gtFine/train/ulm/ulm_1_gtFine_color.png", "gtFine/train/ulm/ulm_1_gtFine_labelIds.png", 33)
    return tmp_path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    for name in "pqr":
        put(tmp_path, f"images/{name}.jpg", f"masks/{name}.png", np.array([0, 1, 2, 3, 255]))
    for split, names in (("train", "rp"), ("val", "q")):
        (tmp_path / f"{split}.txt").write_text("\n".join(names))
    return tmp_path


def test_nested_folders_and_suffixes_as_in_cityscapes(city: Path) -> None:
    train, val = (build_dataset("folders", city, split, **CITY) for split in ("train", "val"))
    assert train.names == ["aachen/aachen_1", "aachen/aachen_2", "ulm/ulm_1", "ulm/ulm_2"]
    assert val.names == ["bonn/bonn_1", "bonn/bonn_2"] and val[0]["name"] == "bonn/bonn_1"
    assert [int(train[i]["mask"].max()) for i in range(4)] == [1, 1, 0, 0]
    assert train.metainfo.classes == ("road", "sidewalk", "building")
    assert DATASETS["folders"].build.present_splits(FoldersOptions(root=str(city), **CITY)) == ("train", "val")


def test_split_files_choose_and_order(plain: Path) -> None:
    options = {**PLAIN, "classes": list("abcd")}
    assert folders(plain, "train", **options).names == ["r", "p"]
    assert folders(plain, "val", **options).names == ["q"]
    everything = {key: value for key, value in options.items() if key != "split_file"}
    assert folders(plain, "all", **everything).names == ["p", "q", "r"]


def test_values_zero_label_and_map(plain: Path) -> None:
    """The file's row is 0 1 2 3 255; expected by MMSegmentation 1.x's LoadAnnotations."""

    def row(**options: Any) -> list[int]:
        return folders(plain, "val", **(PLAIN | options))[0]["mask"][0].tolist()

    assert row(classes=list("abcd")) == [0, 1, 2, 3, 255]
    assert row(reduce_zero_label=True) == [255, 0, 1, 2, 255]
    assert row(classes=["x", "y"], label_map={2: 0, 3: 1}) == [0, 1, 0, 1, 255]
    assert row(classes=list("abc"), label_map={3: 255}) == [0, 1, 2, 255, 255]
    # After the reduction: the key 2 is the file's 3.
    assert row(classes=["x", "y"], reduce_zero_label=True, label_map={2: 0}) == [255, 0, 1, 0, 255]
    # Both that the reduction ignores, 0 and 255, are 255 then.
    assert row(reduce_zero_label=True, label_map={254: 0, 255: 1}) == [1, 0, 1, 2, 1]
    # No chains: 0 -> 1 and 1 -> 0 swap.
    assert row(classes=list("abcd"), label_map={0: 1, 1: 0}) == [1, 0, 2, 3, 255]
    with pytest.raises(InputError, match="q.png holds label 3; labels of Folders are 0-2"):
        folders(plain, "val", **PLAIN)[0]


def test_all_256_values_as_in_mmsegmentation(tmp_path: Path) -> None:
    loading = pytest.importorskip("mmseg.datasets.transforms", reason="needs MMSegmentation 1.x")
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    save_image(tmp_path / "m.png", values)
    for reduce, label_map in ((False, {}), (True, {}), (True, {2: 0, 0: 9, 254: 0, 255: 4}), (False, {1: 2, 2: 1})):
        results = {"seg_map_path": str(tmp_path / "m.png"), "seg_fields": []}
        results |= {"reduce_zero_label": reduce, "label_map": label_map or None}
        theirs = loading.LoadAnnotations()(results)["gt_seg_map"]
        np.testing.assert_array_equal(label_table(reduce, label_map)[values], theirs)


def test_the_same_files_as_mmsegmentation(city: Path, plain: Path) -> None:
    theirs = pytest.importorskip("mmseg.datasets", reason="needs MMSegmentation 1.x").BaseSegDataset
    for root, split, options in ((city, "train", CITY), (plain, "train", PLAIN), (plain, "val", PLAIN)):
        ours = folders(root, split, **options)
        paths = {key: options[key].replace("<split>", split) for key in ("img_dir", "ann_dir")}
        suffixes = {key: options[key] for key in ("img_suffix", "seg_map_suffix") if key in options}
        listed = theirs(
            ann_file=f"{split}.txt" if "split_file" in options else "",
            data_root=str(root),
            data_prefix={"img_path": paths["img_dir"], "seg_map_path": paths["ann_dir"]},
            metainfo={"classes": options["classes"]},
            pipeline=[],
            **suffixes,
        )
        pairs = [(entry["img_path"], entry["seg_map_path"]) for entry in map(listed.get_data_info, range(len(listed)))]
        assert pairs == [(str(ours.image_path(i)), str(ours.mask_path(i))) for i in range(len(ours))]


def test_file_ids_lead_back_to_the_files_values(tmp_path: Path) -> None:
    def ids(**options: Any) -> tuple[int, ...] | None:
        return Folders.describe(FoldersOptions(root=str(tmp_path), **(PLAIN | options))).file_ids

    assert ids() == (0, 1, 2)
    assert ids(reduce_zero_label=True) == (1, 2, 3)
    assert ids(label_map={0: 1, 1: 0}) == (1, 0, 2)
    assert ids(label_map={5: 0, 9: 0}) == (0, 1, 2)  # the lowest of several
    for reduce, label_map in ((False, {}), (True, {}), (True, {0: 2, 2: 0}), (False, {7: 0, 0: 255})):
        found = ids(reduce_zero_label=reduce, label_map=label_map)
        assert label_table(reduce, label_map)[list(found)].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"palette": [[0, 0, 0]]}, "3 classes but 1 palette"),
        ({"label_map": {0: 256}}, "label_map.0: input should be less than or equal to 255, got 256"),
        ({"label_map": {1: 0}}, "no value of a mask file becomes class 'b'"),
        ({"img_suffix": ".tif"}, r"holds no files that end with '.tif'; \d end with '.jpg': set img_suffix to that"),
        ({"seg_map_suffix": "_m.png"}, "end with '_m.png'; . end with '.png': set seg_map_suffix to that"),
        ({"split_file": "lists/<split>.txt"}, "nothing at .* fits lists/<split>.txt, whatever stands for <split>"),
        ({"img_sufix": ".png"}, "img_sufix: unknown key. Did you mean 'img_suffix'"),
    ],
)
def test_wrong_options(plain: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_dataset("folders", plain, "val", **(PLAIN | options))


def test_only_a_true_circle_of_links_is_cut(plain: Path) -> None:
    (plain / "images" / "again").symlink_to(plain / "images", target_is_directory=True)
    (plain / "deep").mkdir()
    put(plain, "deep/s.jpg", "masks/one/s.png")
    put(plain, "deep/s.jpg", "masks/two/s.png")
    for name in ("one", "two"):
        (plain / "images" / name).symlink_to(plain / "deep", target_is_directory=True)
    options = {key: value for key, value in PLAIN.items() if key != "split_file"}
    assert folders(plain, "all", **options).names == ["one/s", "p", "q", "r", "two/s"]


def test_suffixes_are_of_any_case_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPG", "c.jpeg", "d.Jpeg", "e.png", "f.tif", ".g.jpg"):
        put(tmp_path, f"i/{name}", f"m/{name.rsplit('.', 1)[0]}.PNG", np.array([0, 0, 1, 1, 2]))
    options = {"img_dir": "i", "ann_dir": "m", "classes": ["x", "y", "z"]}
    dataset = folders(tmp_path, "all", **options)
    assert dataset.names == ["a", "b", "c", "d"]
    (note,) = label_warnings(dataset)
    assert "2 image files are left out, as their names do not end with '.jpg'; the first is" in note and "e.png" in note
    assert label_warnings(folders(tmp_path, "all", **options | {"img_suffix": ".JPEG"})) == [
        note.replace("'.jpg'", "'.JPEG'")
    ]
    put(tmp_path, "i/a.JPEG", "m/h.png")
    with pytest.raises(InputError, match="two images named 'a'.*: a.JPEG, a.jpg"):
        folders(tmp_path, "all", **options)
