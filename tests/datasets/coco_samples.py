"""Small annotation files in COCO's format."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle
from shared import save_image

H, W = 20, 30
SQUARE = [2.0, 2.0, 14.0, 2.0, 14.0, 14.0, 2.0, 14.0]
SMALL = [5.0, 5.0, 9.0, 5.0, 9.0, 9.0, 5.0, 9.0]
TWO_PARTS = [[1.5, 1.0, 8.2, 3.1, 4.0, 9.9], [20.0, 10.0, 29.0, 11.0, 25.5, 19.0, 19.0, 15.0]]
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 90, "name": "grass"}]
OPTIONS = {"annotation_file": "<split>.json", "image_dir": "<split>"}


def ring() -> np.ndarray:
    """A region with a hole, which polygons cannot express."""
    region = np.zeros((H, W), np.uint8)
    region[3:17, 4:24] = 1
    region[7:12, 9:15] = 0
    return region


def compressed(region: np.ndarray) -> dict[str, Any]:
    encoded = rle.encode(np.asfortranarray(region))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def uncompressed(region: np.ndarray) -> dict[str, Any]:
    flat = region.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    return {"size": list(region.shape), "counts": [0, *counts] if flat[0] else counts}


def annotation(number: int, category: int, segmentation: Any, image: int = 1, crowd: int = 0) -> dict[str, Any]:
    return {
        "id": number, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": crowd,
    }  # fmt: skip


def content(*annotations: dict[str, Any], images: int = 1) -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{i:04d}.jpg", "height": H, "width": W} for i in range(1, images + 1)],
        "annotations": list(annotations),
        "categories": copy.deepcopy(CATEGORIES),
    }


def write_set(root: Path, values: dict[str, Any], split: str = "val") -> Path:
    (root / split).mkdir(parents=True, exist_ok=True)
    for image in values["images"]:
        save_image(root / split / image["file_name"], np.full((image["height"], image["width"], 3), 9))
    (root / f"{split}.json").write_text(json.dumps(values))
    return root
