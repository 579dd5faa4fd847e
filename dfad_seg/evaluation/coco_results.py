"""Label maps as COCO results: one JSON list of run-length encoded masks, one entry per image and class."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from pycocotools import mask as coco_mask

from dfad_seg.common import rle
from dfad_seg.common.errors import InputError, printable
from dfad_seg.common.files import open_whole
from dfad_seg.common.reading import read_json
from dfad_seg.evaluation.predictions import require_all

MAX_BYTES = 2**30
"""Larger files of results are not read."""


class CocoResultsWriter:
    """Writes `[{"image_id", "category_id", "segmentation": {"size": [H, W], "counts"}, "score": 1.0}, …]`.

    The form of COCO's stuff evaluation: each class that occurs in an image has one entry, with pycocotools' compressed
    run-length encoding as text. Use as a context manager: entries go to the disk as they come, and the file appears
    under its name at the end, whole, or not at all.

    Args:
        path: the JSON file.
        category_ids: of each class.
    """

    def __init__(self, path: str | Path, category_ids: Sequence[int]) -> None:
        self.path, self.category_ids = Path(path), list(category_ids)
        self._file: AbstractContextManager[IO[bytes]] = open_whole(self.path)
        self._entries = 0

    def __enter__(self) -> CocoResultsWriter:
        self._handle = self._file.__enter__()
        self._handle.write(b"[")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._handle.write(b"\n]\n")
        self._file.__exit__(kind, error, trace)

    def write(self, image_id: int | str, labels: np.ndarray) -> None:
        """Add the labels (H, W), 0 … C-1, of an image."""
        for label in np.unique(labels).tolist():
            encoded = coco_mask.encode(np.asfortranarray(labels == label, dtype=np.uint8))
            entry = {
                "image_id": image_id,
                "category_id": self.category_ids[label],
                "segmentation": {"size": list(labels.shape), "counts": encoded["counts"].decode("ascii")},
                "score": 1.0,
            }
            self._handle.write(b",\n" if self._entries else b"\n")
            self._handle.write(json.dumps(entry).encode())
            self._entries += 1


class CocoResults:
    """Label maps in a file of COCO results, whatever wrote it; picklable, for reader processes.

    Where entries of one image overlap, the later one counts. Pixels that no entry covers are `background`, if the
    data set has a class of that name; otherwise they must be ignored in the truth.

    Args:
        path: the JSON file.
        category_ids: of each class.
        background: the label of uncovered pixels, or None.
        ignore_index: the label that uncovered pixels get without one.

    Raises:
        InputError: the file cannot be read, an entry is malformed, or its category is unknown.
    """

    def __init__(
        self, path: str | Path, category_ids: Sequence[int], *, background: int | None = None, ignore_index: int = 255
    ) -> None:
        self.path = Path(path)
        self._rest = ignore_index if background is None else background
        label_of = {code: label for label, code in enumerate(category_ids)}
        self._masks: dict[int | str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        entries = read_json(self.path, "COCO results", limit=MAX_BYTES)
        if not isinstance(entries, list):
            raise InputError(f"{path} is no COCO results file: it holds {type(entries).__name__}, a list is needed.")
        for number, entry in enumerate(entries):
            keys = ("image_id", "category_id", "segmentation")
            image, category, segmentation = map(entry.get, keys) if isinstance(entry, dict) else (None, None, None)
            if not isinstance(image, (int, str)) or not isinstance(category, int) or not isinstance(segmentation, dict):
                raise InputError(
                    f"{path}, entry {number} is no COCO result: image_id, category_id and segmentation are needed."
                )
            if category not in label_of:
                known = ", ".join(map(str, category_ids[:30])) + (", …" if len(category_ids) > 30 else "")
                raise InputError(
                    f"{path}, entry {number}: category_id {category} is no class of the data set. "
                    f"Its category ids are {known}."
                )
            self._masks[image].append((label_of[category], segmentation))
        self._masks = dict(self._masks)

    def check(self, names: Iterable[str], ids: Iterable[int | str]) -> list[str]:
        """The image ids that belong to no image.

        Raises:
            InputError: images without an entry.
        """
        ids = list(ids)
        require_all([str(i) for i in ids if i not in self._masks], len(ids), str(self.path))
        return sorted(str(i) for i in self._masks.keys() - set(ids))

    def read(self, name: str, image_id: int | str, size: tuple[int, int]) -> np.ndarray:
        """The labels (H, W) of an image, uint8.

        Raises:
            InputError: a mask has another size, or its encoding is damaged.
        """
        labels, where = np.full(size, self._rest, dtype=np.uint8), f"{self.path}: a mask of image {printable(image_id)}"
        for label, segmentation in self._masks[image_id]:
            encoded = rle.checked(segmentation, size, where)
            if not isinstance(encoded["counts"], bytes):
                encoded = coco_mask.frPyObjects(encoded, *size)
            labels[coco_mask.decode(encoded).view(bool)] = label
        return labels
