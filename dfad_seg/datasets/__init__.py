"""Data sets of images and label masks.

To add one: write one file with a `SegmentationDataset` subclass (its `metainfo` and `find_pairs`), one line
in `DATASETS`, one test.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfad_seg.common.errors import choose
from dfad_seg.common.values import Kind, validated
from dfad_seg.datasets.base import Located, MetaInfo, SegmentationDataset, Transform
from dfad_seg.datasets.coco import Coco, CocoOptions
from dfad_seg.datasets.folders import Folders, FoldersOptions
from dfad_seg.datasets.loaders import eval_loader, train_loader
from dfad_seg.datasets.published import CAMVID, NYUV2_13, VOC, CamVid, NyuV2, Voc
from dfad_seg.datasets.street_scenes import StreetScenes, draw_scene, write_street_scenes
from dfad_seg.datasets.transforms import EvalTransform, TrainingData, TrainTransform

DATASETS: dict[str, Kind[SegmentationDataset]] = {
    "camvid": Kind(Located, CamVid),
    "coco": Kind(CocoOptions, Coco),
    "folders": Kind(FoldersOptions, Folders),
    "nyuv2": Kind(Located, NyuV2),
    "street_scenes": Kind(Located, StreetScenes),
    "voc": Kind(Located, Voc),
}


def build_dataset(
    type: str, root: str | Path, split: str, transform: Transform | None = None, **options: Any
) -> SegmentationDataset:
    """The data set `DATASETS[type]` at folder `root`, with the keys of its options.

    Raises `InputError` for an unknown type, split or folder, and for options that the type needs or does not take.
    """
    kind, values = chosen_kind(type, root, options)
    return kind(values, split, transform=transform)


def chosen_kind(type: str, root: str | Path, options: Mapping[str, Any]) -> tuple[type[SegmentationDataset], Any]:
    """The class of a type of data set, and its checked options."""
    kind: Any = choose(DATASETS, type, "data set type")
    return kind.build, validated(kind.options, {**options, "root": str(root)}, f"data set type {type}")
