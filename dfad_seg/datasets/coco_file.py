"""Reading and checking a COCO annotation file (images, annotations with segmentations, categories)."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from dfad_seg.common.errors import InputError
from dfad_seg.datasets.base import MAX_PIXELS
from dfad_seg.datasets.listing import check_inside

MAX_BYTES = 2 * 1024**3
"""Larger annotation files are refused; the largest of COCO 2017 has half a gigabyte."""

MAX_OUTLINE = 1_000_000
"""Longest outline of one polygon in pixels; pycocotools' memory for a polygon grows with it."""

Polygons = list[np.ndarray]
"""Each float64 (2 n,): x0, y0, x1, y1, ... in pixels."""


class Annotation(NamedTuple):
    """One checked segmentation: the union of polygons, or a run-length encoding as pycocotools takes it."""

    id: int
    category: int
    crowd: bool
    segmentation: Polygons | dict[str, Any]


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


def read_coco(path: Path) -> CocoFile:
    """Read and check an annotation file; the last two files read are kept in memory.

    Raises `InputError` for what is not such a file: no JSON, lists or keys that are missing, ids that occur twice, an
    annotation of an image or category that the file does not have, polygons of fewer than three points or far
    outside the image, and run-length encodings that do not fit the image's size.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"cannot read the annotation file {path}: {error.strerror or error}.") from None
    if status.st_size > MAX_BYTES:
        raise InputError(f"the annotation file {path} has more than {MAX_BYTES >> 30} GiB; split it first.")
    return _read(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=2)
def _read(path: Path, changed: int, size: int) -> CocoFile:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read the annotation file {path}: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"the annotation file {path} is not JSON: {' '.join(str(error).split())}.") from None
    return parse_coco(content, path)


def parse_coco(content: Any, path: Path) -> CocoFile:
    """The checked form of an annotation file's parsed JSON; `path` is for messages.  Errors as in `read_coco`."""
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object with images, annotations and categories.")
    categories = {
        _integer(entry, "id", f"category {i}", path): _text(entry, "name", f"category {i}", path)
        for i, entry in _entries(content, "categories", path)
    }
    images: dict[int, CocoImage] = {}
    for i, entry in _entries(content, "images", path):
        image = _image(entry, i, path)
        images[image.id] = image
    for i, entry in _entries(content, "annotations", path, empty=True):
        image_id, annotation = _annotation(entry, i, images, categories, path)
        images[image_id].annotations.append(annotation)
    names = list(categories.values())
    if len(set(names)) != len(names):
        raise InputError(f"{path} has two categories of the same name; rename one.")
    return CocoFile(path, dict(sorted(categories.items())), [images[i] for i in sorted(images)])


def _entries(content: dict, key: str, path: Path, *, empty: bool = False) -> list[tuple[int, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise InputError(f"{path} has no list '{key}'.")
    if not entries and not empty:
        raise InputError(f"the list '{key}' of {path} is empty.")
    seen: set[Any] = set()
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(f"{path}: entry {i} of '{key}' is not an object.")
        number = entry.get("id", -1 - i if key == "annotations" else None)
        if isinstance(number, (str, int)) and number in seen:
            raise InputError(f"{path}: two entries of '{key}' have the id {number}.")
        if isinstance(number, (str, int)):
            seen.add(number)
    return list(enumerate(entries))


def _integer(entry: dict, key: str, what: str, path: Path, *, least: int = 0) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
        found = "nothing" if key not in entry else repr(value)[:40]
        raise InputError(f"{path}: {what} has {found} as '{key}'; an integer from {least} on is needed.")
    return value


def _text(entry: dict, key: str, what: str, path: Path) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        found = "nothing" if key not in entry else repr(value)[:40]
        raise InputError(f"{path}: {what} has {found} as '{key}'; a text is needed.")
    return value


def _image(entry: dict, position: int, path: Path) -> CocoImage:
    number = _integer(entry, "id", f"image entry {position}", path)
    what = f"image {number}"
    name = _text(entry, "file_name", what, path)
    check_inside(name, f"{path}: {what}")
    height = _integer(entry, "height", what, path, least=1)
    width = _integer(entry, "width", what, path, least=1)
    if height * width > MAX_PIXELS:
        raise InputError(f"{path}: {what} has {width}x{height} pixels, more than {MAX_PIXELS // 10**6} million.")
    return CocoImage(number, str(PurePosixPath(name)), (height, width))


def _annotation(
    entry: dict, position: int, images: dict[int, CocoImage], categories: dict[int, str], path: Path
) -> tuple[int, Annotation]:
    number = _integer(entry, "id", f"annotation entry {position}", path) if "id" in entry else -1
    what = f"{path}: annotation " + (str(number) if "id" in entry else f"entry {position}")
    image_id, category = entry.get("image_id"), entry.get("category_id")
    if not isinstance(image_id, int) or image_id not in images:
        raise InputError(f"{what} belongs to image {image_id!r:.40}, which the file does not have.")
    if not isinstance(category, int) or category not in categories:
        raise InputError(f"{what} has category {category!r:.40}, which the file does not have.")
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise InputError(f"{what} has iscrowd {crowd!r:.40}; 0 or 1 is needed.")
    segmentation = entry.get("segmentation")
    size = images[image_id].size
    checked: Polygons | dict[str, Any]
    if isinstance(segmentation, list) and segmentation:
        checked = [_polygon(points, size, what) for points in segmentation]
    elif isinstance(segmentation, dict):
        checked = _run_lengths(segmentation, size, what)
    else:
        raise InputError(f"{what} has no segmentation: a list of polygons, or size and counts, is needed.")
    return image_id, Annotation(number, category, bool(crowd), checked)


def _polygon(points: Any, size: tuple[int, int], what: str) -> np.ndarray:
    numbers = _numbers(points, what, "polygon")
    if numbers.size < 6 or numbers.size % 2:
        raise InputError(f"{what} has a polygon of {numbers.size} numbers; x and y of at least 3 points are needed.")
    values = numbers.astype(np.float64)
    # Outlines may leave the image a little; beyond one image size on each side they are mistakes.
    height, width = size
    x, y = values[0::2], values[1::2]
    # Written so that a nan, which min and max pass on, fails.
    if not (-width <= x.min() <= x.max() <= 2 * width and -height <= y.min() <= y.max() <= 2 * height):
        raise InputError(f"{what} has a polygon far outside its image of {width}x{height} pixels.")
    possible = 3 * max(size) * x.size
    if possible > MAX_OUTLINE and np.maximum(abs(x - np.roll(x, 1)), abs(y - np.roll(y, 1))).sum() > MAX_OUTLINE:
        raise InputError(f"{what} has a polygon with an outline of more than {MAX_OUTLINE} pixels.")
    return values


def _run_lengths(segmentation: dict, size: tuple[int, int], what: str) -> dict[str, Any]:
    if segmentation.get("size") != list(size):
        raise InputError(
            f"{what} has a run-length encoding of size {segmentation.get('size')!r:.40} (height, width), but its image "
            f"has {list(size)}."
        )
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        runs = decode_counts(counts)
        stored: Any = counts.encode("ascii", "replace")
    else:
        runs = stored = _numbers(counts, what, "run-length encoding")
        if runs.size and runs.dtype.kind != "i":
            raise InputError(f"{what} has run lengths that are not whole numbers.")
    pixels = size[0] * size[1]
    if runs is None or (runs < 0).any() or (runs > pixels).any() or int(runs.sum()) != pixels:
        raise InputError(f"{what} has a run-length encoding that does not cover the {pixels} pixels of its image.")
    return {"size": list(size), "counts": stored}


def _numbers(values: Any, what: str, kind: str) -> np.ndarray:
    try:
        numbers = np.array(values) if isinstance(values, list) else None
    except (ValueError, OverflowError):
        numbers = None
    if numbers is None or numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "if"):
        raise InputError(f"{what} has a {kind} that is not a list of numbers.")
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
