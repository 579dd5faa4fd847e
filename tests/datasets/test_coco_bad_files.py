"""Annotation files that are wrong: one clear line for each, and nothing but `InputError` for random ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_samples import OPTIONS, SQUARE, H, W, annotation, compressed, content, ring, write_set
from PIL import Image

from dfad_seg.common.errors import InputError
from dfad_seg.common.rle import decode_counts
from dfad_seg.datasets import CocoOptions, build_dataset, coco_file
from dfad_seg.datasets.coco import map_categories
from dfad_seg.datasets.coco_file import parse_coco, read_coco


def good() -> dict[str, Any]:
    return content(annotation(1, 3, [SQUARE]), annotation(2, 7, compressed(ring())))


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    """A change that sets the value at a path, the last element; `...` removes it."""
    *keys, last, value = path

    def change(values: dict[str, Any]) -> None:
        node: Any = values
        for key in keys:
            node = node[key]
        if value is ...:
            del node[last]
        else:
            node[last] = value

    return change


FIRST, SECOND = ("annotations", 0), ("annotations", 1)
WRONG = {
    "no images": (put("images", ...), "x.json has no list 'images'"),
    "entry no object": (put("images", 0, 5), "entry 0 of 'images' is not an object"),
    "image id text": (put("images", 0, "id", "one"), "image one: id: input should be a valid integer"),
    "too many pixels": (put("images", 0, "height", 10**9), "image 1 has more than 80 million pixels"),
    "file name outside": (put("images", 0, "file_name", "../a.jpg"), "image 1 names '../a.jpg', which is not a file"),
    "file name absolute": (put("images", 0, "file_name", "/a.jpg"), "image 1 names '/a.jpg', which is not a file"),
    "category id twice": (put("categories", 0, "id", 3), "two categories of other names have the id 3"),
    "image id twice": (
        lambda values: values["images"].append(values["images"][0] | {"width": 31}),
        "two different entries of 'images' have the id 1",
    ),
    "text in polygon": (put(*FIRST, "segmentation", [[1, 2, 3, 4, 5, "6"]]), "polygon that is not a list of numbers"),
    "far outside": (put(*FIRST, "segmentation", [[0, 0, 5, 5, 1e9, 0]]), "polygon far outside its image of 30x20"),
    "not a number": (put(*FIRST, "segmentation", [[0, 0, 5, 5, float("nan"), 0]]), "polygon far outside"),
    "endless outline": (put(*FIRST, "segmentation", [[0, 0, 30, 20] * 40_000]), "an outline of more than 1000000"),
    "size of another image": (put(*SECOND, "segmentation", "size", [W, H]), r"size \[30, 20\] .*image has \[20, 30\]"),
    "counts no list": (put(*SECOND, "segmentation", "counts", 3), "run-length encoding that is not a list of numbers"),
    "segmentation a text": (put(*FIRST, "segmentation", "mask.png"), "neither a list of polygons nor size and counts"),
    "counts too short": (put(*SECOND, "segmentation", "counts", [3, 5]), "does not cover the 600 pixels of its image"),
    "counts negative": (put(*SECOND, "segmentation", "counts", [700, -100]), "does not cover the 600 pixels"),
    "text of odd characters": (put(*SECOND, "segmentation", "counts", "é\ud800"), "does not cover the 600 pixels"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_file_is_one_line_that_says_where(fault: str) -> None:
    change, message = WRONG[fault]
    values = good()
    parse_coco(values, Path("x.json"))
    change(values)
    with pytest.raises(InputError, match=message) as caught:
        parse_coco(values, Path("x.json"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_what_is_no_annotation_file_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_file, "MAX_BYTES", 200_000)
    for data, message in (
        (None, "annotation file: cannot read .*No such file"),
        (b"", "is no valid JSON"),
        (b"\xff\xfe", "is no text"),
        (b"[" * 100_000, "is no valid JSON"),
        (b"9" * 10_000, "is no valid JSON"),
        (b"[]", "must hold a JSON object"),
        (b"{}" + b" " * 200_000, "has more than 200000 bytes"),
    ):
        if data is not None:
            (tmp_path / "x.json").write_bytes(data)
        with pytest.raises(InputError, match=message):
            read_coco(tmp_path / "x.json")


def test_tens_of_thousands_of_categories_are_refused_at_once() -> None:
    values = good()
    values["categories"] += [{"id": 100 + i, "name": f"c{i}"} for i in range(70_000)]
    with pytest.raises(InputError, match="1 to 255 classes, beside the ignored label; this one has 70004"):
        map_categories(parse_coco(values, Path("x.json")), CocoOptions(root=".", **OPTIONS))


def test_images_that_are_missing_or_of_another_size(tmp_path: Path) -> None:
    root = write_set(tmp_path, good())
    Image.new("RGB", (W + 1, H)).save(root / "val" / "0001.jpg")
    with pytest.raises(InputError, match="image 1 in .*val.json is 30x20 but its image .*0001.jpg is 31x20"):
        build_dataset("coco", root, "val", **OPTIONS)[0]
    (root / "val" / "0001.jpg").rename(root / "val" / "2.jpg")
    with pytest.raises(InputError, match=r"val.json names '0001.jpg' \(1 such\), which is not in .*val"):
        build_dataset("coco", root, "val", **OPTIONS)
    twice = content(images=2)
    twice["images"][1]["file_name"] = "0001.png"
    with pytest.raises(InputError, match="two images with the same file_name"):
        build_dataset("coco", write_set(tmp_path / "b", twice), "val", **OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["cta"]}, "classes names 'cta', which is no category of .*Did you mean 'cat'"),
        ({"classes": ["cat", "cat"]}, "names a class twice: cat"),
        ({"classes": ["cat", "background"], "background": False}, "but background is false"),
        ({"palette": [(0, 0, 0)]}, "4 classes but 1 palette"),
        ({"paltte": []}, "paltte: unknown key. Did you mean 'palette'"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_dataset("coco", write_set(tmp_path, good()), "val", **OPTIONS, **options)


def test_numbers_of_too_many_groups_are_refused() -> None:
    """Seven groups of five bits hold any run; more would leave the 64 bits of pycocotools' integers."""
    padded = ["hb" + "P" * zeros + "0" for zeros in (0, 4, 5)]  # 600 = 24 + 18 * 32, then groups of nothing
    assert padded[0] == compressed(np.zeros((H, W), np.uint8))["counts"]
    counts = [decode_counts(text) for text in padded]
    assert [None if found is None else found.tolist() for found in counts] == [[600], [600], None]
