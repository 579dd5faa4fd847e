"""CamVid in its folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dfad_seg.datasets import build_dataset
from dfad_seg.datasets.camvid import SPLIT_SIZES


def test_real_camvid(shared_data: Path) -> None:
    root = shared_data / "CamVid"
    assert {split: len(build_dataset("camvid", root, split)) for split in SPLIT_SIZES} == SPLIT_SIZES
    for split in SPLIT_SIZES:
        dataset = build_dataset("camvid", root, split)
        sample = dataset[len(dataset) // 2]
        assert sample["image"].shape == (3, 360, 480) and sample["mask"].shape == (360, 480)
        raw = np.array(Image.open(dataset.mask_path(len(dataset) // 2)))
        np.testing.assert_array_equal(sample["mask"].numpy() == 255, raw == 11)
        # The sky of these daylight and dusk scenes lies above the road.
        rows = {label: np.nonzero(raw == label)[0].mean() for label in (0, 3)}
        assert rows[0] < rows[3]
