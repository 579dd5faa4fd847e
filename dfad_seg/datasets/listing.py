"""Split files, folders with sub-folders, and paths in which `<split>` stands for the split's name."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from dfad_seg.common.errors import InputError

SPLIT = "<split>"
ALL = "all"
"""The one split of a data set none of whose paths contains `<split>`."""


def read_listing(path: Path, *, only_stems: bool = False) -> list[str]:
    """The names in a split file, one per line; empty lines do not count.

    `only_stems`: of each line, the file stem of its first word, as in lists that hold the paths of image and mask.

    Raises `InputError` if it cannot be read, is empty, names something twice, or a name points out of the
    data set (`..` or an absolute path).
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"cannot read the split file {path}: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise InputError(f"the split file {path} is not UTF-8 text.") from None
    names = [line.strip() for line in lines if line.strip()]
    if only_stems:
        names = [PurePosixPath(name.split()[0]).stem for name in names]
    if not names:
        raise InputError(f"the split file {path} is empty; it needs the name of an image per line.")
    for name in names:
        check_inside(name, f"the split file {path}")
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise InputError(f"the split file {path} names '{name}' twice.")
    return names


def check_inside(name: str, where: str) -> None:
    """`InputError` unless `name` is a relative path that stays below the folder it is relative to."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise InputError(f"{where} names '{name}', which is not a file below the data set's folder.")


def require_listed(names: Collection[str], present: Collection[str], listing: Path, folder: Path) -> None:
    """`InputError` naming the first of `names` (from the file `listing`) that is not among those in `folder`."""
    absent = [name for name in names if name not in present]
    if absent:
        raise InputError(f"{listing} names '{absent[0]}' ({len(absent)} such), which is not in {folder}.")


def list_tree(folder: Path, suffix: str, what: str) -> dict[str, Path]:
    """Name -> path of all files below `folder` that end with `suffix`, sorted; the name is the path below `folder`,
    with `/`, without the suffix.  Hidden files and folders are left out.  Raises `InputError` if there is no
    such folder."""
    if not folder.is_dir():
        raise InputError(f"no {what} folder at {folder}.")
    found = {}
    visited: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in visited:  # links can form a circle
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.endswith(suffix) and not name.startswith("."):
                path = Path(parent, name)
                found[path.relative_to(folder).as_posix()[: -len(suffix) or None]] = path
    return dict(sorted(found.items()))


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
