"""Split files, folders with sub-folders, and paths in which `<split>` stands for the split's name."""

import glob
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from dfad_seg.common.errors import InputError, instead_of, printable
from dfad_seg.common.reading import check_inside, read_text

_JPEG = (".jpg", ".jpeg")
IMAGE_SUFFIXES = (".png", *_JPEG)
_ALL_IMAGES = (*IMAGE_SUFFIXES, *".avif .bmp .dcm .gif .heic .jp2 .npy .pgm .ppm .tif .tiff .webp".split())
MAX_LIST = 2**26
"""Bytes of a split file."""
MAX_FILES = 4_000_000
"""In one folder and what is below it, links followed."""
SPLIT = "<split>"
ALL = "all"
"""The one split of a data set none of whose paths contains `<split>`."""


def list_files(
    folder: Path,
    suffixes: tuple[str, ...],
    what: str,
    *,
    deep: bool = True,
    notes: list[str] | None = None,
    beside: Collection[Path] = (),
    option: str = "",
) -> dict[str, Path]:
    """The files in `folder` whose names end with one of `suffixes`, in upper or lower case; .jpg and .jpeg are one.

    Hidden files and folders do not count. Links are followed, but for those that lead to a folder they lie in.

    Args:
        deep: the files in sub-folders count as well.
        notes: is told what other images are left out, but for those `beside`.
        option: that the suffix is from, for the message.

    Returns:
        By name, sorted: the path below the folder, with `/`, without the suffix.
    """
    if not folder.is_dir():
        raise InputError(f"no {what} folder at {folder}.{instead_of(folder)}")
    ends = [suffix.lower() for suffix in suffixes]
    ends += [end[: end.rindex(".")] + alike for end in ends if end.endswith((".jpg", ".jpeg")) for alike in _JPEG]
    found: dict[str, Path] = {}
    left_out = []
    for path in _walk(folder, what, deep):
        low = path.name.lower()
        end = next((end for end in ends if low.endswith(end)), None)
        if end is not None:
            name = path.relative_to(folder).as_posix()
            name = name[: len(name) - len(end)]
            if name in found:
                raise InputError(f"two {what}s named '{name}' in {folder}: {found[name].name}, {path.name}.")
            found[name] = path
        elif low.endswith(_ALL_IMAGES) and path not in beside:
            left_out.append(path)
    wanted = f"end with {' or '.join(map(repr, suffixes))}"
    if not found:
        usual = Counter(path.suffix for path in left_out).most_common(1)
        do = f"; {usual[0][1]} end with '{usual[0][0]}'" if usual else ""
        do += f": set {option} to that" if usual and option else ""
        raise InputError(f"the {what} folder {folder} holds no files{f' that {wanted}' if any(ends) else ''}{do}.")
    if left_out and notes is not None:
        first = printable(min(left_out))
        notes.append(
            f"{len(left_out)} {what} files are left out, as their names do not {wanted}; the first is {first}."
        )
    return dict(sorted(found.items()))


def list_images(folder: Path, what: str, notes: list[str] | None = None) -> dict[str, Path]:
    """File stem -> path of the PNG and JPEG files in `folder`, without sub-folders; otherwise as `list_files`."""
    return list_files(folder, IMAGE_SUFFIXES, what, deep=False, notes=notes)


def _walk(folder: Path, what: str, deep: bool) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"cannot list the {what} folder {error.filename}: {error.strerror or error}.") from None

    count = 0
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        above = [path for path in (Path(place), *Path(place).parents) if path.is_relative_to(folder)]
        circle = len({os.path.realpath(path) for path in above}) < len(above)
        folders[:] = [name for name in folders if deep and not circle and not name.startswith(".")]
        count += len(files) + len(folders)
        if count > MAX_FILES:
            raise InputError(f"the {what} folder {folder} holds more than {MAX_FILES} files; do links multiply them?")
        yield from (Path(place, name) for name in sorted(files) if not circle and not name.startswith("."))


def read_listing(path: Path, *, only_stems: bool = False) -> list[str]:
    """The names in a split file, one per line, each once; empty lines do not count.

    `only_stems`: of each line, the file stem of its first word, as in lists that hold the paths of image and mask.
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


def require_listed(names: Collection[str], present: Collection[str], listing: Path, folder: Path) -> None:
    """`InputError` naming the first of `names` (from the file `listing`) that is not among those in `folder`."""
    absent = [name for name in names if name not in present]
    if absent:
        raise InputError(f"{listing} names '{printable(absent[0])}' ({len(absent)} such), which is not in {folder}.")


def found_splits(root: Path, templates: list[str]) -> tuple[str, ...]:
    """The splits for which a file or folder exists: what `<split>` can stand for in the first of `templates` (paths,
    relative to `root`) that contains it; `("all",)` if none does."""
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
