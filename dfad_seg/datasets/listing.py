"""Split files, folders with sub-folders, and paths in which `<split>` stands for the split's name."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

from dfad_seg.common.errors import InputError, printable
from dfad_seg.common.reading import read_text

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_OTHER_IMAGES = ".avif .bmp .dcm .gif .heic .jp2 .npy .pgm .ppm .tif .tiff .webp".split()
MAX_LIST = 2**26
"""Bytes of a split file."""
MAX_FILES = 4_000_000
"""In one folder and what is below it, links followed."""
SPLIT = "<split>"
ALL = "all"
"""The one split of a data set none of whose paths contains `<split>`."""


class Listing(NamedTuple):
    """The files that count in a folder, and the image files that do not."""

    files: dict[str, Path]
    """By name: the path below the folder, with `/`, without the suffix; sorted."""
    left_out: list[Path]

    def notes(self, suffixes: str, kind: str = "image") -> list[str]:
        """What is to be said of the files that are left out: nothing, or one line."""
        if not self.left_out:
            return []
        return [
            f"{len(self.left_out)} {kind} files are left out, as their names do not end with {suffixes}; the first is "
            f"{printable(self.left_out[0])}."
        ]

    def require(self, suffix: str, option: str, where: str) -> None:
        """`InputError` where no file counts; it names the commonest end of those that are there."""
        if not self.files:
            ends = Counter(path.suffix for path in self.left_out).most_common(1)
            do = f"; {ends[0][1]} end with '{ends[0][0]}': set {option} to that" if ends else ""
            raise InputError(f"the {where} holds no files that end with '{suffix}'{do}.")


def list_files(folder: Path, suffix: str | tuple[str, ...], what: str, *, deep: bool = True) -> Listing:
    """The files in `folder` whose names end with `suffix`, in upper or lower case; .jpg and .jpeg are one.

    Hidden files and folders do not count. Links are followed, but for those that lead to a folder they lie in. With
    `deep` the files in sub-folders count as well.

    Raises:
        InputError: no such folder, one that cannot be listed, or two files of one name, suffix aside.
    """
    if not folder.is_dir():
        raise InputError(f"no {what} folder at {folder}.")
    ends = _alike(suffix) if isinstance(suffix, str) else suffix
    found: dict[str, Path] = {}
    left_out = []
    for path in _walk(folder, what, deep):
        low = path.name.lower()
        end = next((end for end in ends if low.endswith(end.lower())), None)
        if end is None:
            if low.endswith((*IMAGE_SUFFIXES, *_OTHER_IMAGES)):
                left_out.append(path)
            continue
        name = path.relative_to(folder).as_posix()
        name = name[: len(name) - len(end)]
        if name in found:
            raise InputError(f"two {what}s named '{name}' in {folder}: {found[name].name}, {path.name}.")
        found[name] = path
    return Listing(dict(sorted(found.items())), left_out)


def list_images(folder: Path, what: str, notes: list[str] | None = None) -> dict[str, Path]:
    """File stem -> path of the image files in `folder`, without sub-folders; `InputError` also if there is none.

    `notes` is told what is left out.
    """
    listing = list_files(folder, IMAGE_SUFFIXES, what, deep=False)
    if not listing.files:
        raise InputError(f"the {what} folder {folder} holds no {' / '.join(IMAGE_SUFFIXES)} files.")
    if notes is not None:
        notes += listing.notes(", ".join(IMAGE_SUFFIXES))
    return listing.files


def is_image(path: PurePath) -> bool:
    """Whether a file counts as an image, by its name; hidden files do not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _alike(suffix: str) -> tuple[str, ...]:
    low = suffix.lower()
    if low.endswith((".jpg", ".jpeg")):
        return tuple(suffix[: low.rindex(".")] + end for end in (".jpg", ".jpeg"))
    return (suffix,)


def _walk(folder: Path, what: str, deep: bool) -> Iterator[Path]:
    todo: list[tuple[Path, tuple[str, ...]]] = [(folder, ())]
    count = 0
    while todo:
        place, above = todo.pop()
        real = os.path.realpath(place)
        if real in above:  # links form a circle
            continue
        try:
            with os.scandir(place) as entries:
                inner = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            raise InputError(f"cannot list the {what} folder {place}: {error.strerror or error}.") from None
        count += len(inner)
        if count > MAX_FILES:
            raise InputError(f"the {what} folder {folder} holds more than {MAX_FILES} files; do links multiply them?")
        for entry in inner:
            if not entry.is_dir():
                yield place / entry.name
            elif deep:
                todo.append((place / entry.name, (*above, real)))


def read_listing(path: Path, *, only_stems: bool = False) -> list[str]:
    """The names in a split file, one per line; empty lines do not count.

    `only_stems`: of each line, the file stem of its first word, as in lists that hold the paths of image and mask.

    Raises `InputError` if it cannot be read, is empty, names something twice, or a name points out of the
    data set (`..` or an absolute path).
    """
    lines = read_text(path, "split file", limit=MAX_LIST).splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if only_stems:
        names = [PurePosixPath(name.split()[0]).stem for name in names]
    if not names:
        raise InputError(f"the split file {path} is empty; it needs the name of an image per line.")
    for name in names:
        check_inside(name, f"the split file {path}")
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise InputError(f"the split file {path} names '{printable(name)}' twice.")
    return names


def check_inside(name: str, where: str) -> None:
    """`InputError` unless `name` is a relative path that stays below the folder it is relative to."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise InputError(f"{where} names '{printable(name)}', which is not a file below the data set's folder.")


def require_listed(names: Collection[str], present: Collection[str], listing: Path, folder: Path) -> None:
    """`InputError` naming the first of `names` (from the file `listing`) that is not among those in `folder`."""
    absent = [name for name in names if name not in present]
    if absent:
        raise InputError(f"{listing} names '{printable(absent[0])}' ({len(absent)} such), which is not in {folder}.")


def fill(template: str, split: str) -> str:
    """`template` with the split's name put in."""
    return template.replace(SPLIT, split)


def found_splits(root: Path, templates: list[str]) -> tuple[str, ...]:
    """The splits for which a file or folder exists: what `<split>` can stand for in the first of `templates` (paths,
    relative to `root`) that contains it; `("all",)` if none does.

    Raises `InputError` if nothing fits.
    """
    template = next((path for path in templates if SPLIT in path), None)
    if template is None:
        return (ALL,)
    parts = str(root / template).split(SPLIT)
    first, *others = [re.escape(part) for part in parts]
    pattern = f"{first}(?P<split>[^/]+){'(?P=split)'.join(others)}"
    hits = glob.glob("*".join(glob.escape(part) for part in parts))
    splits = sorted({match["split"] for hit in hits if (match := re.fullmatch(pattern, hit))})
    if not splits:
        raise InputError(f"nothing at {root} fits {template}, whatever stands for {SPLIT}.")
    return tuple(splits)
