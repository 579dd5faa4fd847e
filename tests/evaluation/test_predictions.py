"""Stored predictions: PNG folders and COCO results, there and back, and what is wrong with those of others."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from dfad_seg.common.errors import InputError
from dfad_seg.evaluation import CocoResults, PredictionFolder, coco_results_writer, png_writer

IDS = [0, 7, 3, 255, 200]
PALETTE = [(0, 0, 0), (10, 20, 30), (255, 0, 0), (1, 2, 3), (0, 0, 255)]


def label_map(seed, size=(11, 13), classes=5):
    return np.random.default_rng(seed).integers(0, classes, size, dtype=np.uint8)


def write_pngs(folder, maps, ids=IDS):
    write = png_writer(folder, ids, PALETTE[: len(ids)])
    for name, labels in maps.items():
        write(name, labels)


def test_png_round_trip_codes_colours_and_sub_folders(tmp_path):
    maps = {f"seq/{i}/frame.{i}": label_map(i, (5 + i, 9)) for i in range(40)}
    write_pngs(tmp_path, maps)
    for name, labels in maps.items():
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.mode == "P"
            assert np.array_equal(np.array(picture), np.array(IDS, np.uint8)[labels])
            assert np.array_equal(np.array(picture.convert("RGB")), np.array(PALETTE, np.uint8)[labels])
    folder = PredictionFolder(tmp_path, IDS)
    assert folder.check(maps, maps) == []
    for name, labels in maps.items():
        assert np.array_equal(folder.read(name, name, labels.shape), labels)
    assert not list(tmp_path.rglob("*.tmp"))


def test_grey_pngs_of_others_and_255_as_ignored(tmp_path):
    labels = np.array([[0, 7, 255]], np.uint8)
    Image.fromarray(labels).save(tmp_path / "a.png")
    assert PredictionFolder(tmp_path, [0, 7]).read("a", "a", (1, 3)).tolist() == [[0, 1, 255]]


def test_missing_and_extra_images(tmp_path):
    write_pngs(tmp_path, {name: label_map(0) for name in "abcd"})
    folder = PredictionFolder(tmp_path, IDS)
    assert folder.check(["a", "c"], ["a", "c"]) == ["b", "d"]
    with pytest.raises(InputError, match=r"no prediction for 4 of 5 images: v, w, x and 1 more"):
        folder.check(["a", "v", "w", "x", "y"], range(5))


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (lambda path: Image.new("P", (4, 4)).save(path), "is 4x4, and 5x4 is needed"),
        (lambda path: Image.new("L", (5, 4), 9).save(path), "holds the value 9, which is no class.*are 0, 1, 2."),
    ],
)
def test_wrong_files_are_named(tmp_path, save, message):
    save(tmp_path / "a.png")
    with pytest.raises(InputError, match=message) as caught:
        PredictionFolder(tmp_path, [0, 1, 2]).read("a", "a", (4, 5))
    assert "a.png" in str(caught.value)


def write_coco(path, maps, ids=IDS):
    with coco_results_writer(path, ids) as write_one:
        for image, labels in maps.items():
            write_one(image, labels)


def test_coco_round_trip_and_parity_with_pycocotools(tmp_path):
    maps = {139: label_map(0), 7: label_map(1, (30, 1)), "b/2007_000033": label_map(2, (8, 9), 2)}
    ids = [1, 92, 1000, 4, 0]
    write_coco(tmp_path / "r.json", maps, ids)
    entries = json.loads((tmp_path / "r.json").read_text())
    assert len({(e["image_id"], e["category_id"]) for e in entries}) == len(entries)
    for entry in entries:
        labels, rle = maps[entry["image_id"]], entry["segmentation"]
        expected = labels == ids.index(entry["category_id"])
        assert isinstance(rle["counts"], str)
        assert np.array_equal(coco_mask.decode(rle).astype(bool), expected)
        assert coco_mask.area(rle) == expected.sum()
    results = CocoResults(tmp_path / "r.json", ids)
    assert results.check(["x"] * 3, [7, "b/2007_000033", 139]) == []
    for image, labels in maps.items():
        assert np.array_equal(results.read("", image, labels.shape), labels)


def entry(mask, category=1, image=1, **changes):
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    segmentation = {"size": list(mask.shape), "counts": rle["counts"].decode()} | changes
    return {"image_id": image, "category_id": category, "segmentation": segmentation}


def stored(tmp_path, *entries, **options):
    (tmp_path / "r.json").write_text(json.dumps(entries))
    return CocoResults(tmp_path / "r.json", [0, 1, 2], **options)


def test_uncovered_pixels_overlaps_and_plain_run_lengths(tmp_path):
    left, middle = (np.tile(np.array(row, bool), (2, 1)) for row in ([1, 1, 0, 0], [0, 1, 1, 0]))
    plain = entry(middle, 2)
    plain["segmentation"]["counts"] = [2, 4, 2]
    for last in (entry(middle, 2), plain):
        labels = stored(tmp_path, entry(left, 1), last).read("", 1, (2, 4))
        assert labels.tolist() == [[1, 2, 2, 255]] * 2
    background = stored(tmp_path, entry(left, 1), background=0).read("", 1, (2, 4))
    assert background.tolist() == [[1, 1, 0, 0]] * 2


FULL = np.ones((2, 4), bool)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry(FULL, size=[4, 2])], r"size \[4, 2\] \(height, width\), but its image has \[2, 4\]"),
        ([entry(FULL, counts="08\x01")], "run-length encoding that does not cover the 8 pixels"),
        ([entry(FULL, category=9)], "entry 0: category_id 9 is no class of the data set. Its category ids are 0, 1, 2"),
        ([entry(FULL), {"image_id": 1}], "entry 1 is no COCO result"),
        ([entry(FULL, size=[2.5, 4])], r"size \[2.5, 4\]"),
    ],
)
def test_wrong_results_are_named(tmp_path, entries, message):
    with pytest.raises(InputError, match=message) as caught:
        stored(tmp_path, *entries).read("", 1, (2, 4))
    assert "r.json" in str(caught.value)


def test_unknown_and_missing_images_and_other_files(tmp_path):
    results = stored(tmp_path, entry(FULL, image=1), entry(FULL, image=5))
    assert results.check(["a"], [1]) == ["5"]
    with pytest.raises(InputError, match="no prediction for 1 of 2 images: 2"):
        results.check(["a", "b"], [1, 2])
    for text, message in (("{}", "a list is needed"), ("[", "no valid JSON")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InputError, match=message):
            CocoResults(tmp_path / "x.json", [0])
    for wrong, message in (
        (lambda: CocoResults(tmp_path / "none.json", [0]), "cannot read"),
        (lambda: PredictionFolder(tmp_path / "none", [0]), "no folder"),
        (lambda: PredictionFolder(tmp_path, [0]), "holds no PNG"),
        (lambda: png_writer(tmp_path, [0, 256], PALETTE[:2]), "--save-coco"),
        (lambda: png_writer(tmp_path, [0], PALETTE[:1])("../a", label_map(0)), "not a file below"),
    ):
        with pytest.raises(InputError, match=message):
            wrong()


def test_a_failed_evaluation_leaves_no_results_file(tmp_path):
    with pytest.raises(ValueError), coco_results_writer(tmp_path / "r.json", [0, 1]) as write_one:
        write_one(1, np.zeros((2, 2), np.uint8))
        raise ValueError
    assert list(tmp_path.iterdir()) == []
