"""Reading and checking a COCO annotation file (images, annotations with segmentations, categories)."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from dfad_seg.common import rle
from dfad_seg.common.errors import InputError, printable
from dfad_seg.common.images import MAX_PIXELS
from dfad_seg.common.reading import check_inside, read_json
from dfad_seg.common.values import Count, Positive, Text, options, validated

MAX_BYTES = 2 * 1024**3
"""Larger annotation files are refused; the largest of COCO 2017 has half a gigabyte."""

MAX_OUTLINE = 1_000_000
"""Longest outline of one polygon in pixels; pycocotools' memory for a polygon grows with it."""

Part = np.ndarray | dict[str, Any]
"""A polygon, float64 (2 n,): x0, y0, x1, y1, ... in pixels; or a run-length encoding as pycocotools takes it."""


class Annotation(NamedTuple):
    """One checked segmentation: the union of its parts."""

    category: int
    crowd: bool
    parts: list[Part]


@dataclass
class CocoImage:
    """One image of the file: `size` is (height, width) in pixels, `file_name` relative to the image folder."""

    id: int
    file_name: str
    size: tuple[int, int]
    annotations: list[Annotation] = field(default_factory=list)


@dataclass(frozen=True)
class CocoFile:
    """The categories (id -> name, by id) and the images (by id) of an annotation file."""

    path: Path
    categories: dict[int, str]
    images: list[CocoImage]
    groups: frozenset[int]
    """Categories that only name the group of others, as tools add them: no classes unless they are asked for."""
    left_out: dict[str, list[str]]
    """Reason -> the annotations that are left out for it."""
    total: int
    """Annotations in the file, those left out included."""

    def notes(self, *, groups: bool) -> list[str]:
        """What was left out, in one line; none if there is nothing. `groups`: whether these are left out."""
        said = [f"{len(names)} {why} (first {names[0]})" for why, names in self.left_out.items()]
        if said:
            count = sum(len(names) for names in self.left_out.values())
            said = [f"{count} of {self.total} annotations are left out: {', '.join(said)}"]
        said += [
            f"category {id} '{printable(self.categories[id], 40)}' has no annotation and only names the group of "
            "others, so it is no class (unless 'classes' names it)"
            for id in sorted(self.groups if groups else ())
        ]
        return [f"{self.path}: {'; '.join(said)}."] if said else []


def read_coco(path: Path) -> CocoFile:
    """Read and check an annotation file.

    What usual tools write is read: whole numbers as floats, repeated annotation ids, a polygon that is not in a list.
    Annotations without a region, or of an image or category that the file does not have, are left out and counted.
    A file is parsed once, while it stays as it is: a run opens its data set several times.
    """
    state = None
    with suppress(OSError, ValueError):  # reading it says what is wrong
        found = path.stat()
        state = (found.st_ino, found.st_size, found.st_mtime_ns)
    return _parsed(path, state)


@functools.lru_cache(maxsize=2)
def _parsed(path: Path, state: Any) -> CocoFile:
    return parse_coco(read_json(path, "annotation file", limit=MAX_BYTES), path)


@options
class _Category:
    id: Count
    name: Text
    supercategory: Any = None


@options
class _Image:
    id: Count
    file_name: Text
    height: Positive
    width: Positive


@options
class _Annotation:
    image_id: Count
    category_id: Count
    segmentation: Any = None
    iscrowd: bool | None = None


def parse_coco(content: Any, path: Path) -> CocoFile:
    """The checked form of an annotation file's parsed JSON; `path` is for messages.  Errors as in `read_coco`."""
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object with images, annotations and categories.")
    categories: dict[int, str] = {}
    parents: dict[int, str] = {}
    for _, entry in _entries(content, "categories", _Category, path):
        if categories.setdefault(entry.id, entry.name) != entry.name:
            raise InputError(f"{path}: two categories of other names have the id {entry.id}.")
        parents[entry.id] = str(entry.supercategory or "")
    images: dict[int, CocoImage] = {}
    for what, entry in _entries(content, "images", _Image, path):
        check_inside(entry.file_name, f"{path}: {what}")
        if entry.height * entry.width > MAX_PIXELS:
            raise InputError(f"{path}: {what} has more than {MAX_PIXELS // 10**6} million pixels.")
        image = CocoImage(entry.id, str(PurePosixPath(entry.file_name)), (entry.height, entry.width))
        if images.setdefault(image.id, image) != image:
            raise InputError(f"{path}: two different entries of 'images' have the id {image.id}.")
    left_out: dict[str, list[str]] = {}
    used = set()
    for what, entry in _entries(content, "annotations", _Annotation, path, empty=True):
        used.add(entry.category_id)
        if entry.image_id not in images:
            reason: str | None = "of an image that the file does not have"
        elif entry.category_id not in categories:
            reason = "of a category that the file does not have"
        else:
            image = images[entry.image_id]
            parts, reason = _parts(entry.segmentation, image.size, f"{path}: {what}")
            if parts:
                image.annotations.append(Annotation(entry.category_id, bool(entry.iscrowd), parts))
        if reason is not None:
            left_out.setdefault(reason, []).append(what)
    # A tool's own root category: no annotation has it, it has no group itself, and it is the group of others.
    grouped = Counter(parents.values())
    groups = frozenset(
        id
        for id, name in categories.items()
        if id not in used
        and parents[id].lower() in ("", "none", "root")
        and grouped[name] > (parents[id] == name)  # by others
    )
    ordered = [images[i] for i in sorted(images)]
    return CocoFile(path, dict(sorted(categories.items())), ordered, groups, left_out, len(content["annotations"]))


_ONE = {"images": "image", "categories": "category", "annotations": "annotation"}


def _entries(content: dict, key: str, kind: type, path: Path, *, empty: bool = False) -> Iterator[tuple[str, Any]]:
    """What each entry of a list is called, and the entry, checked; keys that are not asked for are left alone."""
    entries = content.get(key)
    if not isinstance(entries, list) or not (entries or empty):
        raise InputError(f"{path} has no list '{key}' with entries.")
    known = [field.name for field in dataclasses.fields(kind)]
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(f"{path}: entry {i} of '{key}' is not an object.")
        what = f"{_ONE[key]} {printable(entry['id'], 40)}" if "id" in entry else f"entry {i} of '{key}'"
        yield what, validated(kind, {name: entry[name] for name in known if name in entry}, f"{path}: {what}")


def _parts(segmentation: Any, size: tuple[int, int], where: str) -> tuple[list[Part], str | None]:
    """The parts of a segmentation, and why it or a part of it is left out, if so."""
    if isinstance(segmentation, dict):
        segmentation = [segmentation] if segmentation.get("counts") else []
    if not segmentation and segmentation in (None, [], "", 0):
        return [], "without a segmentation"
    if not isinstance(segmentation, list):
        raise InputError(f"{where} has a segmentation that is neither a list of polygons nor size and counts.")
    if not any(isinstance(part, (list, dict)) for part in segmentation):
        segmentation = [segmentation]  # one polygon that is not in a list
    found = [rle.checked(p, size, where) if isinstance(p, dict) else _polygon(p, size, where) for p in segmentation]
    parts = [part for part in found if part is not None]
    if not parts:
        return [], "without a polygon of three points"
    return parts, None if len(parts) == len(found) else "in part, where polygons have no three points"


def _polygon(points: Any, size: tuple[int, int], where: str) -> np.ndarray | None:
    if isinstance(points, list) and points and all(isinstance(p, list) and len(p) == 2 for p in points):
        points = [value for point in points for value in point]
    values = rle.numbers(points, where, "polygon").astype(np.float64)
    if values.size < 6 or values.size % 2:
        return None
    # Outlines may leave the image a little; beyond one image size on each side they are mistakes.
    height, width = size
    x, y = values[0::2], values[1::2]
    # Written so that a nan, which min and max pass on, fails.
    if not (-width <= x.min() <= x.max() <= 2 * width and -height <= y.min() <= y.max() <= 2 * height):
        raise InputError(f"{where} has a polygon far outside its image of {width}x{height} pixels.")
    possible = 3 * max(size) * x.size
    if possible > MAX_OUTLINE and np.maximum(abs(x - np.roll(x, 1)), abs(y - np.roll(y, 1))).sum() > MAX_OUTLINE:
        raise InputError(f"{where} has a polygon with an outline of more than {MAX_OUTLINE} pixels.")
    return values
