"""Data sets of images and label masks.

To add one: write one file with a `SegmentationDataset` subclass (its `metainfo` and `find_pairs`), one line
in `DATASETS`, one test.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfad_seg.common.errors import InputError, choose, nearest
from dfad_seg.datasets.base import SegmentationDataset, Transform
from dfad_seg.datasets.camvid import CamVid
from dfad_seg.datasets.coco import Coco
from dfad_seg.datasets.folders import Folders
from dfad_seg.datasets.loaders import eval_loader, train_loader
from dfad_seg.datasets.metainfo import CAMVID, NYUV2_13, VOC, MetaInfo
from dfad_seg.datasets.nyuv2 import NyuV2
from dfad_seg.datasets.street_scenes import StreetScenes, draw_scene, write_street_scenes
from dfad_seg.datasets.transforms import eval_transform, train_transform
from dfad_seg.datasets.voc import Voc

DATASETS: dict[str, type[SegmentationDataset]] = {
    "camvid": CamVid,
    "coco": Coco,
    "folders": Folders,
    "nyuv2": NyuV2,
    "street_scenes": StreetScenes,
    "voc": Voc,
}


def build_dataset(
    type: str,
    root: str | Path,
    split: str,
    transform: Transform | None = None,
    **options: Any,
) -> SegmentationDataset:
    """The data set `DATASETS[type]` at folder `root`, with the options of its constructor.

    Raises `InputError` for an unknown type, split or folder, and for options that the type needs or does not take.
    """
    kind = choose(DATASETS, type, "data set type")
    check_options(type, options)
    return kind(root, split, transform=transform, **options)


def dataset_info(type: str, root: str | Path, **options: Any) -> MetaInfo:
    """The classes of the data set `DATASETS[type]` at `root`, without listing its images; errors as in
    `build_dataset`."""
    kind = choose(DATASETS, type, "data set type")
    check_options(type, options)
    return kind.describe(root, **options)


def check_options(type: str, options: Mapping[str, Any]) -> None:
    """`InputError` for options that the data set type needs and are not there, or that it does not take."""
    parameters = inspect.signature(choose(DATASETS, type, "data set type")).parameters
    known = {name: value for name, value in parameters.items() if name not in ("root", "split", "transform")}
    for name in options:
        if name not in known:
            takes = f"It takes {', '.join(known)}." if known else "It takes none."
            raise InputError(f"data set type {type} has no option '{name}'.{nearest(name, known)} {takes}")
    missing = [name for name, value in known.items() if value.default is value.empty and name not in options]
    if missing:
        raise InputError(f"data set type {type} needs {', '.join(missing)}.")


__all__ = [
    "CAMVID",
    "DATASETS",
    "CamVid",
    "Coco",
    "Folders",
    "MetaInfo",
    "NYUV2_13",
    "NyuV2",
    "SegmentationDataset",
    "StreetScenes",
    "Transform",
    "VOC",
    "Voc",
    "build_dataset",
    "check_options",
    "dataset_info",
    "draw_scene",
    "eval_loader",
    "eval_transform",
    "train_loader",
    "train_transform",
    "write_street_scenes",
]
