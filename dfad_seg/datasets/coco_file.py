"""Reading and checking a COCO annotation file (images, annotations with segmentations, categories)."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from dfad_seg.common.errors import InputError, printable
from dfad_seg.common.images import MAX_PIXELS
from dfad_seg.common.reading import read_json
from dfad_seg.datasets.listing import check_inside

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
    """Read and check an annotation file; the last two files read are kept in memory.

    What usual tools write is read: whole numbers as floats, repeated annotation ids, a polygon that is not in a list.
    Annotations without a region, or of an image or category that the file does not have, are left out and counted.

    Raises `InputError` for what is not such a file: no JSON, lists or keys that are missing, wrong types, images or
    categories that contradict each other, polygons far outside the image, and run-length encodings that do not fit its
    size.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read the annotation file {path}: {reason}.") from None
    return _read(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=2)
def _read(path: Path, changed: int, size: int) -> CocoFile:
    return parse_coco(read_json(path, "annotation file", limit=MAX_BYTES), path)


def parse_coco(content: Any, path: Path) -> CocoFile:
    """The checked form of an annotation file's parsed JSON; `path` is for messages.  Errors as in `read_coco`."""
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object with images, annotations and categories.")
    categories, parents = _categories(content, path)
    images: dict[int, CocoImage] = {}
    for i, entry in _entries(content, "images", path):
        image = _image(entry, i, path)
        known = images.setdefault(image.id, image)
        if known != image:
            raise InputError(f"{path}: two different entries of 'images' have the id {image.id}.")
    left_out: dict[str, list[str]] = {}
    used = set()
    total = 0
    for i, entry in _entries(content, "annotations", path, empty=True):
        what = f"annotation {printable(entry['id'], 40)}" if "id" in entry else f"annotation entry {i}"
        where, total = f"{path}: {what}", total + 1
        image_id, category = _whole(entry, "image_id", where), _whole(entry, "category_id", where)
        used.add(category)
        if image_id not in images:
            reason: str | None = "of an image that the file does not have"
        elif category not in categories:
            reason = "of a category that the file does not have"
        else:
            parts, reason = _parts(entry.get("segmentation"), images[image_id].size, where)
            if parts:
                images[image_id].annotations.append(Annotation(category, _crowd(entry, where), parts))
        if reason is not None:
            left_out.setdefault(reason, []).append(what)
    # A tool's own root category: no annotation has it, it has no group itself, and it is the group of others.
    groups = frozenset(
        id
        for id, name in categories.items()
        if id not in used
        and parents[id].lower() in ("", "none", "root")
        and any(parent == name and other != id for other, parent in parents.items())
    )
    return CocoFile(path, categories, [images[i] for i in sorted(images)], groups, left_out, total)


def _categories(content: dict, path: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Names and super categories by id."""
    names: dict[int, str] = {}
    parents: dict[int, str] = {}
    for i, entry in _entries(content, "categories", path):
        id = _whole(entry, "id", f"{path}: category {i}")
        name = _text(entry, "name", f"{path}: category {i}")
        if names.setdefault(id, name) != name:
            raise InputError(f"{path}: two categories of other names have the id {id}.")
        parents[id] = str(entry.get("supercategory") or "")
    return dict(sorted(names.items())), parents


def _entries(content: dict, key: str, path: Path, *, empty: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise InputError(f"{path} has no list '{key}'.")
    if not entries and not empty:
        raise InputError(f"the list '{key}' of {path} is empty.")
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(f"{path}: entry {i} of '{key}' is not an object.")
        yield i, entry


def _whole(entry: dict, key: str, where: str, *, least: int = 0) -> int:
    value = entry.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
        found = "nothing" if key not in entry else printable(repr(value), 40)
        raise InputError(f"{where} has {found} as '{key}'; an integer from {least} on is needed.")
    return value


def _text(entry: dict, key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        found = "nothing" if key not in entry else printable(repr(value), 40)
        raise InputError(f"{where} has {found} as '{key}'; a text is needed.")
    return value


def _image(entry: dict, position: int, path: Path) -> CocoImage:
    number = _whole(entry, "id", f"{path}: image entry {position}")
    where = f"{path}: image {number}"
    name = _text(entry, "file_name", where)
    check_inside(name, where)
    height, width = _whole(entry, "height", where, least=1), _whole(entry, "width", where, least=1)
    if height * width > MAX_PIXELS:
        raise InputError(f"{where} has {width}x{height} pixels, more than {MAX_PIXELS // 10**6} million.")
    return CocoImage(number, str(PurePosixPath(name)), (height, width))


def _crowd(entry: dict, where: str) -> bool:
    crowd = entry.get("iscrowd") or 0
    if crowd not in (0, 1):
        raise InputError(f"{where} has iscrowd {printable(repr(crowd), 40)}; 0 or 1 is needed.")
    return bool(crowd)


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
    found = [_run_lengths(p, size, where) if isinstance(p, dict) else _polygon(p, size, where) for p in segmentation]
    parts = [part for part in found if part is not None]
    if not parts:
        return [], "without a polygon of three points"
    return parts, None if len(parts) == len(found) else "in part, where polygons have no three points"


def _polygon(points: Any, size: tuple[int, int], where: str) -> np.ndarray | None:
    if isinstance(points, list) and points and all(isinstance(p, list) and len(p) == 2 for p in points):
        points = [value for point in points for value in point]
    numbers = _numbers(points, where, "polygon")
    if numbers.size < 6 or numbers.size % 2:
        return None
    values = numbers.astype(np.float64)
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


def _run_lengths(segmentation: dict, size: tuple[int, int], where: str) -> dict[str, Any]:
    if segmentation.get("size") != list(size):  # equal also where they are floats
        raise InputError(
            f"{where} has a run-length encoding of size {printable(repr(segmentation.get('size')), 40)} (height, "
            f"width), but its image has {list(size)}."
        )
    counts = segmentation.get("counts")
    stored: Any
    if isinstance(counts, str):
        runs, stored = decode_counts(counts), counts.encode("ascii", "replace")
    else:
        found = _numbers(counts, where, "run-length encoding")
        if not np.isfinite(found).all() or (found != np.round(found)).any() or (abs(found) > MAX_PIXELS).any():
            raise InputError(f"{where} has run lengths that are not whole numbers of pixels.")
        runs = stored = found.astype(np.int64)
    pixels = math.prod(size)
    if runs is None or (runs < 0).any() or (runs > pixels).any() or int(runs.sum()) != pixels:
        raise InputError(f"{where} has a run-length encoding that does not cover the {pixels} pixels of its image.")
    return {"size": list(size), "counts": stored}


def _numbers(values: Any, where: str, kind: str) -> np.ndarray:
    try:
        numbers = np.array(values) if isinstance(values, list) else None
    except (ValueError, OverflowError):
        numbers = None
    if numbers is None or numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "if"):
        raise InputError(f"{where} has a {kind} that is not a list of numbers.")
    return numbers


def decode_counts(text: str) -> np.ndarray | None:
    """The run lengths in the text form of COCO's compressed run-length encoding, int64; None if it is malformed.

    The form (`maskApi.c`, `rleFrString`): each number in groups of five bits, lowest first, one per character (code
    minus 48), bit 5 set where another group follows, bit 4 of the last group the sign; from the fourth number on
    the difference to the number two before.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    last = np.flatnonzero((codes & 32) == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    length = last - first + 1
    if length.max() > 7:  # 35 bits: more than any image needs, and within int64
        return None
    place = np.arange(codes.size) - np.repeat(first, length)
    values = np.add.reduceat((codes & 31) << 5 * place, first)
    values -= np.where(codes[last] & 16, np.int64(1) << 5 * length, 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
