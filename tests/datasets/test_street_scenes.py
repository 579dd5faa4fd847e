"""The drawn data set: reproducible, exactly labelled, learnable, safe to write."""

from pathlib import Path

import numpy as np
import pytest
from shared import contents

from dfad_seg.common.errors import InputError
from dfad_seg.datasets import CAMVID, build_dataset, draw_scene, write_street_scenes

SIZE = (48, 64)
COUNTS = {"train": 3, "val": 2, "test": 2}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("streets") / "set"
    write_street_scenes(root, size=SIZE, counts=COUNTS, seed=3)
    return root


@pytest.mark.parametrize("size", [(32, 32), (33, 57), (96, 128), (47, 200), (130, 40)])
def test_any_size(size: tuple[int, int]) -> None:
    image, mask = draw_scene(0, 1, size)
    assert image.shape == (*size, 3) and image.dtype == np.uint8
    assert mask.shape == size and mask.dtype == np.uint8 and mask.max() <= 11
    assert image.std() > 15


def test_labels_sit_exactly_on_what_is_drawn() -> None:
    # A label map moved by a few pixels explains the picture's colours worse than the true one.
    for index in range(5):
        image, mask = draw_scene(4, index, (96, 128))
        image = image.astype(float)
        inner = (slice(4, -4), slice(4, -4))

        def spread(labels: np.ndarray, image: np.ndarray = image[inner]) -> float:
            groups = (image[labels == label] for label in np.unique(labels))
            return sum(((group - group.mean(0)) ** 2).sum() for group in groups)

        moves = [(0, 3), (0, -3), (3, 0), (-3, 0)]
        moved = [spread(np.roll(mask, move, axis=(0, 1))[inner]) for move in moves]
        assert spread(mask[inner]) < min(moved)


def test_written_set_is_byte_identical_and_reads_back(written: Path, tmp_path: Path) -> None:
    write_street_scenes(tmp_path / "again", size=SIZE, counts=COUNTS, seed=3)
    assert contents(written) == contents(tmp_path / "again")
    dataset = build_dataset("street_scenes", written, "val")
    assert len(dataset) == 2 and dataset.metainfo is CAMVID
    image, mask = draw_scene(3 * 3 + 1, 1, SIZE)
    sample = dataset[1]
    np.testing.assert_array_equal((sample["image"].numpy() * 255).round(), image.transpose(2, 0, 1))
    np.testing.assert_array_equal(sample["mask"].numpy(), np.where(mask == 11, 255, mask))


def test_a_finished_set_is_kept_and_nothing_else_is_touched(written: Path) -> None:
    before, times = contents(written), {path: path.stat().st_mtime_ns for path in written.rglob("*.png")}
    write_street_scenes(written, size=SIZE, counts=COUNTS, seed=3)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*.png")} == times
    with pytest.raises(InputError, match="in the way"):
        write_street_scenes(written, size=SIZE, counts={"train": 2}, seed=0)
    assert contents(written) == before and [path.name for path in written.parent.iterdir()] == ["set"]


def test_bad_requests(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="size is"):
        draw_scene(0, 0, (31, 64))
    for counts, message in (({"trian": 2}, "split 'trian'"), ({"train": -1}, "street scenes: seed"), ({}, "seed")):
        with pytest.raises(InputError, match=message):
            write_street_scenes(tmp_path, size=SIZE, counts=counts)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="in the way"):
        write_street_scenes(tmp_path / "file", size=SIZE, counts={"train": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
