"""Data sets of images and label masks.

To add one: write one file with a `SegmentationDataset` subclass (its `metainfo` and `find_pairs`), one line
in `DATASETS`, one test.
"""

from __future__ import annotations

from pathlib import Path

from dfad_seg.datasets.base import SegmentationDataset, Transform
from dfad_seg.datasets.camvid import CamVid
from dfad_seg.datasets.loaders import eval_loader, train_loader
from dfad_seg.datasets.metainfo import CAMVID, NYUV2_13, VOC, MetaInfo
from dfad_seg.datasets.street_scenes import StreetScenes, draw_scene, write_street_scenes
from dfad_seg.datasets.transforms import eval_transform, train_transform
from dfad_seg.datasets.voc import Voc
from dfad_seg.errors import choose

DATASETS: dict[str, type[SegmentationDataset]] = {
    "camvid": CamVid,
    "street_scenes": StreetScenes,
    "voc": Voc,
}


def build_dataset(
    type: str,
    root: str | Path,
    split: str,
    transform: Transform | None = None,
) -> SegmentationDataset:
    """The data set `DATASETS[type]` at folder `root`; `InputError` for an unknown type, split or folder."""
    return choose(DATASETS, type, "data set type")(root, split, transform=transform)


__all__ = [
    "CAMVID",
    "DATASETS",
    "CamVid",
    "MetaInfo",
    "NYUV2_13",
    "SegmentationDataset",
    "StreetScenes",
    "Transform",
    "VOC",
    "Voc",
    "build_dataset",
    "draw_scene",
    "eval_loader",
    "eval_transform",
    "train_loader",
    "train_transform",
    "write_street_scenes",
]
