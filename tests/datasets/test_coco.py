"""COCO annotation files: rendered as pycocotools' own COCO class does, and one clear line for each that is wrong."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_samples import (
    OPTIONS,
    SMALL,
    SQUARE,
    TWO_PARTS,
    H,
    W,
    annotation,
    compressed,
    content,
    ring,
    uncompressed,
    write_set,
)
from damage import put
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from dfad_seg.common.errors import InputError
from dfad_seg.common.rle import decode_counts
from dfad_seg.datasets import Coco, CocoOptions, MetaInfo, build_dataset, coco_file
from dfad_seg.datasets.check import label_warnings
from dfad_seg.datasets.coco import encode, map_categories, render
from dfad_seg.datasets.coco_file import parse_coco, read_coco


def classes_of(root: Path) -> MetaInfo:
    return Coco.describe(CocoOptions(root=str(root), **OPTIONS))


def masks_of(root: Path, **options: Any) -> np.ndarray:
    return build_dataset("coco", root, "val", **OPTIONS, **options)[0]["mask"].numpy()


def reference(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


KINDS = {
    "polygon": [SQUARE],
    "two polygons": TWO_PARTS,
    "overlapping polygons": [SQUARE, SMALL],
    "polygon over the border": [[-4.0, -3.0, 40.0, 2.5, 35.0, 30.0]],
    "ring, compressed": compressed(ring()),
    "ring, uncompressed": uncompressed(ring()),
    "everything": uncompressed(np.ones((H, W), np.uint8)),
    "nothing": compressed(np.zeros((H, W), np.uint8)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_regions_are_those_of_pycocotools(tmp_path: Path, kind: str) -> None:
    values = content(annotation(1, 3, KINDS[kind]))
    theirs = reference(write_set(tmp_path, values) / "val.json")
    expected = theirs.annToMask(theirs.loadAnns(1)[0])
    file = parse_coco(values, tmp_path / "val.json")
    encoded = encode(file.images[0].annotations[0], (H, W))
    np.testing.assert_array_equal(rle.decode(encoded), expected)
    assert int(rle.area(encoded)) == expected.sum()
    # Labels: background 0, cat (id 3) 1, dog (id 7) 2, grass (id 90) 3.
    np.testing.assert_array_equal(masks_of(tmp_path), expected)


def test_a_file_is_parsed_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[Path] = []
    monkeypatch.setattr(coco_file, "parse_coco", lambda values, path: parsed.append(path) or parse_coco(values, path))
    write_set(tmp_path, content(annotation(1, 3, [SQUARE])))
    before = masks_of(tmp_path)
    masks_of(tmp_path)
    assert len(parsed) == 1
    write_set(tmp_path, content(annotation(1, 3, TWO_PARTS)))
    assert (masks_of(tmp_path) != before).any()


def test_classes_and_background(tmp_path: Path) -> None:
    everything = np.ones((H, W), np.uint8)
    write_set(tmp_path, content(annotation(1, 90, compressed(everything)), annotation(2, 3, compressed(ring()))))
    inside = ring().astype(bool)
    np.testing.assert_array_equal(masks_of(tmp_path, classes=["cat"]), np.where(inside, 1, 0))
    np.testing.assert_array_equal(masks_of(tmp_path, classes=["dog", "grass"]), np.full((H, W), 2))
    np.testing.assert_array_equal(masks_of(tmp_path, classes=["cat"], background=False), np.where(inside, 0, 255))
    np.testing.assert_array_equal(masks_of(tmp_path, classes=["cat", "background"]), np.where(inside, 0, 1))


@pytest.mark.parametrize(
    ("categories", "classes", "ids"),
    [
        ([{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}], ("background", "cat", "dog"), (2, 0, 1)),
        ([{"id": 0, "name": "background"}, {"id": 1, "name": "cat"}], ("background", "cat"), (0, 1)),
        ([{"id": 1, "name": "cat"}, {"id": 9, "name": "background"}], ("cat", "background"), (1, 9)),
    ],
)
def test_a_category_0_and_one_named_background(
    tmp_path: Path, categories: list[dict[str, Any]], classes: tuple[str, ...], ids: tuple[int, ...]
) -> None:
    """As in VOC converted to COCO's format, where both forms are found."""
    write_set(tmp_path, content() | {"categories": categories})
    info = classes_of(tmp_path)
    assert (info.classes, info.file_ids) == (classes, ids)


def test_256_annotations_of_one_image(tmp_path: Path) -> None:
    """The areas of so many as one batch are too many for pycocotools."""
    many = [annotation(i, 7, [SQUARE]) for i in range(1, 300)]
    write_set(tmp_path, content(*many, annotation(300, 3, [SMALL])))
    mask = masks_of(tmp_path)
    assert mask[6, 6] == 1 and mask[3, 3] == 2 and mask[18, 28] == 0


def test_what_usual_tools_write_is_read(tmp_path: Path) -> None:
    odd = content(
        annotation(1, 3.0, [SQUARE]) | {"image_id": 1.0, "iscrowd": None},
        annotation(1, 7, SMALL),  # its id is there twice, and its polygon is in no list
        annotation(2, 90, [[[20, 10], [28, 10], [28, 18]], [1, 1, 2, 2]]),
    )
    odd["images"][0] |= {"width": float(W), "height": float(H), "file_name": "day\\one.jpg"}
    root = write_set(
        tmp_path, odd | {"images": [odd["images"][0] | {"width": W, "height": H, "file_name": "day/one.jpg"}]}
    )
    (root / "val.json").write_text(json.dumps(odd | {"images": odd["images"] * 2}))
    plain = content(
        annotation(1, 3, [SQUARE]), annotation(2, 7, [SMALL]), annotation(3, 90, [[20, 10, 28, 10, 28, 18]])
    )
    np.testing.assert_array_equal(masks_of(root), masks_of(write_set(tmp_path / "plain", plain)))
    assert build_dataset("coco", root, "val", **OPTIONS).names == ["day/one"]


def test_what_must_be_left_out_is_counted_in_one_warning(tmp_path: Path) -> None:
    good = annotation(1, 3, [SQUARE])
    bad = [annotation(i, 7, kind) for i, kind in enumerate(([], None, [[1, 1, 9, 9]]), start=2)]
    bad += [annotation(5, 7, {"size": [H, W], "counts": []}), annotation(6, 7, [SMALL], image=99)]
    bad += [annotation(7, 55, [SMALL])]
    mask = masks_of(write_set(tmp_path / "good", content(good)))
    root = write_set(tmp_path / "bad", content(good, *bad))
    np.testing.assert_array_equal(masks_of(root), mask)
    (warning,) = label_warnings(build_dataset("coco", root, "val", **OPTIONS))
    for part in (
        "val.json: 6 of 7 annotations are left out: 3 without a segmentation (first annotation 2)",
        "1 without a polygon of three points (first annotation 4)",
        "1 of an image that the file does not have (first annotation 6)",
        "1 of a category that the file does not have (first annotation 7)",
    ):
        assert part in warning
    assert label_warnings(build_dataset("coco", tmp_path / "good", "val", **OPTIONS)) == []


def test_a_root_category_of_a_tool_moves_no_label(tmp_path: Path) -> None:
    cats = [{"id": 1, "name": "cat", "supercategory": "pets"}, {"id": 2, "name": "dog", "supercategory": "pets"}]
    root = {"id": 0, "name": "pets", "supercategory": "none"}
    values = content(annotation(1, 2, [SQUARE]))
    plain = masks_of(write_set(tmp_path / "plain", values | {"categories": cats}))
    made = write_set(tmp_path / "made", values | {"categories": [root, *cats]})
    np.testing.assert_array_equal(masks_of(made), plain)
    info = classes_of(made)
    assert info.classes == ("background", "cat", "dog") and info.file_ids == (3, 1, 2)
    (warning,) = label_warnings(build_dataset("coco", made, "val", **OPTIONS))
    assert "category 0 'pets' has no annotation and only names the group of others, so it is no class" in warning
    named = {"classes": ["pets", "cat", "dog"]}
    assert (
        masks_of(made, **named).max() == 3
        and label_warnings(build_dataset("coco", made, "val", **OPTIONS, **named)) == []
    )
    # The only class of a set, under a root of its name; and a root that is annotated is a class.
    alone = [{"id": 0, "name": "dog", "supercategory": "none"}, {"id": 2, "name": "dog", "supercategory": "dog"}]
    info = classes_of(write_set(tmp_path / "alone", values | {"categories": alone}))
    assert info.classes == ("background", "dog") and info.file_ids == (3, 2)
    used = content(annotation(1, 0, [SQUARE])) | {"categories": [root, *cats]}
    info = classes_of(write_set(tmp_path / "used", used))
    assert info.classes == ("background", "pets", "cat", "dog")


def test_a_turned_photo_of_the_stored_size_is_refused(tmp_path: Path) -> None:
    """That size says nothing of how it was drawn, as tools take it from the file and still show the photo turned."""
    root, tags = write_set(tmp_path, content(annotation(1, 3, [SQUARE]))), Image.Exif()
    tags[274] = 6
    Image.new("RGB", (W, H)).save(root / "val" / "0001.jpg", exif=tags)
    with pytest.raises(InputError, match="0001.jpg has EXIF orientation 6: viewers show it turned.*Save it without"):
        masks_of(root)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([3, 7, 90]), st.integers(0, 2**32 - 1), st.booleans()), max_size=6))
def test_rendering_is_the_overlap_rule_pixel_by_pixel(objects: list[tuple[int, int, bool]]) -> None:
    regions = [np.random.default_rng(seed).random((6, 5)) < 0.4 for _, seed, _ in objects]
    values = content(
        *(
            annotation(i, category, compressed(region.astype(np.uint8)), crowd=int(crowd))
            for i, ((category, _, crowd), region) in enumerate(zip(objects, regions, strict=True))
        )
    )
    values["images"][0] |= {"height": 6, "width": 5}
    labels = {3: 1, 7: 2}
    expected = np.zeros((6, 5), int)
    for row, column in np.ndindex(6, 5):
        covering = [
            (not crowd, -int(region.sum()), i)  # crowd below all, then large below small, then by the file
            for i, ((category, _, crowd), region) in enumerate(zip(objects, regions, strict=True))
            if region[row, column] and category in labels
        ]
        if covering:
            category, _, crowd = objects[max(covering)[2]]
            expected[row, column] = 255 if crowd else labels[category]
    image = parse_coco(values, Path("x.json")).images[0]
    np.testing.assert_array_equal(render(image, labels, uncovered=0), expected)


def good() -> dict[str, Any]:
    return content(annotation(1, 3, [SQUARE]), annotation(2, 7, compressed(ring())))


IMAGE = content()["images"][0]
FIRST, SECOND = ("annotations", 0, "segmentation"), ("annotations", 1, "segmentation")
WRONG = {
    "no images": (("images",), ..., "x.json has no list 'images'"),
    "entry no object": (("images", 0), 5, "entry 0 of 'images' is not an object"),
    "image id text": (("images", 0, "id"), "one", "image one: id: input should be a valid integer"),
    "too many pixels": (("images", 0), IMAGE | dict(height=9_000, width=9_000), "image 1 has more than 80 million"),
    "file name outside": (("images", 0, "file_name"), "../a.jpg", "image 1 names '../a.jpg', which is not a file"),
    "file name absolute": (("images", 0, "file_name"), "/a.jpg", "image 1 names '/a.jpg', which is not a file"),
    "category id twice": (("categories", 0, "id"), 3, "two categories of other names have the id 3"),
    "image id twice": (("images",), [IMAGE, IMAGE | {"width": 31}], "two different entries of 'images' have the id 1"),
    "text in polygon": (FIRST, [[1, 2, 3, 4, 5, "6"]], "polygon that is not a list of numbers"),
    "far outside": (FIRST, [[0, 0, 5, 5, 1e9, 0]], "polygon far outside its image of 30x20"),
    "not a number": (FIRST, [[0, 0, 5, 5, float("nan"), 0]], "polygon far outside"),
    "endless outline": (FIRST, [[0, 0, 30, 20] * 40_000], "an outline of more than 1000000"),
    "size of another image": ((*SECOND, "size"), [W, H], r"size \[30, 20\] .*image has \[20, 30\]"),
    "counts no list": ((*SECOND, "counts"), 3, "run-length encoding that is not a list of numbers"),
    "segmentation a text": (FIRST, "mask.png", "neither a list of polygons nor size and counts"),
    "counts too short": ((*SECOND, "counts"), [3, 5], "does not cover the 600 pixels of its image"),
    "counts negative": ((*SECOND, "counts"), [700, -100], "does not cover the 600 pixels"),
    "text of odd characters": ((*SECOND, "counts"), "é\ud800", "does not cover the 600 pixels"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_file_is_one_line_that_says_where(fault: str) -> None:
    at, value, message = WRONG[fault]
    parse_coco(good(), Path("x.json"))
    with pytest.raises(InputError, match=message) as caught:
        parse_coco(put(good(), at, value), Path("x.json"))
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
