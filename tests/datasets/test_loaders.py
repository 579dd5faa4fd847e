"""Batches: the same from any starting point, on any number of ranks and workers."""

import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from shared import save_image

from dfad_seg.common.errors import InputError
from dfad_seg.datasets import (
    StreetScenes,
    TrainingData,
    TrainTransform,
    build_dataset,
    eval_loader,
    train_loader,
    write_street_scenes,
)
from dfad_seg.datasets.loaders import DataLoader


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("streets")
    write_street_scenes(root, size=(32, 40), counts={"train": 10, "val": 7}, seed=0)
    return root


@pytest.fixture
def train(root: Path) -> StreetScenes:
    transform = TrainTransform(TrainingData(color_jitter=0.3), (24, 24))
    return build_dataset("street_scenes", root, "train", transform=transform)


def indices(loader: DataLoader) -> list[list[int]]:
    return [batch["index"] for batch in loader]


def same(one: dict, two: dict) -> bool:
    return one["index"] == two["index"] and all(torch.equal(one[key], two[key]) for key in ("image", "mask"))


def test_train_batches(train: StreetScenes) -> None:
    batches = list(train_loader(train, batch_size=4, iterations=5, seed=0, num_workers=0))
    assert len(batches) == 5
    assert batches[0]["image"].shape == (4, 3, 24, 24) and batches[0]["mask"].shape == (4, 24, 24)
    assert batches[0]["name"] == [train.names[i] for i in batches[0]["index"]]
    # Two epochs of ten samples: each sample once in each, in another order.
    row = [index for batch in batches for index in batch["index"]]
    assert sorted(row[:10]) == sorted(row[10:]) == list(range(10)) and row[:10] != row[10:]
    other = indices(train_loader(train, batch_size=4, iterations=5, seed=1, num_workers=0))
    assert other != [batch["index"] for batch in batches]


def test_resumed_is_uninterrupted_with_any_number_of_workers(train: StreetScenes) -> None:
    whole = list(train_loader(train, batch_size=3, iterations=8, seed=5, num_workers=0))
    rest = train_loader(train, batch_size=3, iterations=8, seed=5, start_iteration=5, num_workers=2)
    for one, two in zip(whole[5:], rest, strict=True):
        assert same(one, two)
    assert list(train_loader(train, batch_size=3, iterations=8, seed=5, start_iteration=8)) == []


def test_ranks_share_one_row_of_samples(train: StreetScenes) -> None:
    alone = indices(train_loader(train, batch_size=6, iterations=5, seed=2, num_workers=0))
    ranks = [
        indices(train_loader(train, batch_size=2, iterations=5, seed=2, num_workers=0, rank=r, world_size=3))
        for r in range(3)
    ]
    for iteration, together in enumerate(alone):
        parts = [ranks[rank][iteration] for rank in range(3)]
        assert [index for group in zip(*parts, strict=True) for index in group] == together


@pytest.mark.parametrize("world_size", [1, 2, 3, 9])
def test_evaluation_sees_each_sample_once(root: Path, world_size: int) -> None:
    dataset = build_dataset("street_scenes", root, "val")
    seen = []
    for rank in range(world_size):
        loader = eval_loader(dataset, batch_size=2, num_workers=0, rank=rank, world_size=world_size)
        mine = [index for batch in indices(loader) for index in batch]
        assert mine == sorted(mine)
        seen += mine
    assert sorted(seen) == list(range(7))


def test_images_of_unequal_size(root: Path, tmp_path: Path) -> None:
    for number, width in enumerate([8, 8, 9, 8]):
        save_image(tmp_path / "val" / f"{number}.png", np.zeros((6, width, 3)))
        save_image(tmp_path / "valannot" / f"{number}.png", np.zeros((6, width)))
    equal, unequal = eval_loader(build_dataset("street_scenes", tmp_path, "val"), batch_size=2, num_workers=0)
    assert equal["image"].shape == (2, 3, 6, 8)
    assert [tuple(image.shape) for image in unequal["image"]] == [(3, 6, 9), (3, 6, 8)]
    assert [tuple(mask.shape) for mask in unequal["mask"]] == [(6, 9), (6, 8)]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_file_arrives_as_one_line(tmp_path: Path, num_workers: int) -> None:
    write_street_scenes(tmp_path, size=(32, 32), counts={"val": 2})
    save_image(tmp_path / "valannot" / "street_00001.png", np.full((32, 32), 77))
    loader = eval_loader(build_dataset("street_scenes", tmp_path, "val"), batch_size=1, num_workers=num_workers)
    with pytest.raises(InputError) as caught:
        list(loader)
    assert str(caught.value).startswith("mask ") and "label 77" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []  # stopped at once, not when the garbage is collected


def test_workers_start_after_opencv_used_threads_here(train: StreetScenes) -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.GaussianBlur(np.zeros((600, 600, 3), np.float32), (0, 0), 3)
        torch.ones(400, 400) @ torch.ones(400, 400)
        train.transform = TrainTransform(TrainingData(scale=(2.0, 3.0)), (64, 64))
        assert len(list(train_loader(train, batch_size=2, iterations=3, seed=0, num_workers=2))) == 3
    finally:
        cv2.setNumThreads(before)
