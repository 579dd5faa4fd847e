"""Whole-file writes: a reader sees the old file or the new one, never a part, and nothing but a file is replaced."""

import csv
import io
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch

from dfad_seg.common.errors import InputError, machine_fault, printable

TEMPORARY = ".tmp"
"""The end of a temporary name; it begins with a dot."""


def check_target(path: str | Path, what: str = "", *, folder: bool = False) -> None:
    """Find out before the work whether its result can be written; writes nothing.

    A link to a regular file of the same folder may be replaced, as a file; no other link is.

    Args:
        path: of the file, or with `folder` of the folder; it and its parents need not exist.
        what: names it in messages, such as `--out`.

    Raises:
        InputError: it exists and is no regular file (no folder), its name is too long, its parent is no folder, or
            cannot be written into; it begins with `what`.
    """
    place = _check_kind(Path(path), what, folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InputError(f"{what} cannot write into {printable(place)}: {error.strerror}.".lstrip()) from None


def _check_kind(path: Path, what: str, folder: bool) -> Path:
    """The checks of `check_target` that cost nothing; returns the nearest parent that exists."""
    begin = f"{what} {printable(path)}".lstrip()
    try:
        place, missing = Path(os.path.abspath(path)), []
        while not os.path.lexists(place):
            missing.append(place.name)
            place = place.parent
        if missing or folder:
            if not place.is_dir():
                raise InputError(f"{begin} cannot be written: {printable(place)} is no folder.")
            for end in (*missing, os.path.join("", *missing[::-1])):  # what is too long does not "exist" either
                with suppress(FileNotFoundError):
                    os.lstat(place / end)
            return place
        if place.is_dir():
            raise InputError(f"{begin} is a folder. Give the path of a file.")
        if not stat.S_ISREG(os.stat(place).st_mode):
            raise InputError(f"{begin} is no regular file, and only files are replaced. Give the path of a file.")
        if place.is_symlink() and Path(os.path.realpath(place)).parent != Path(os.path.realpath(place.parent)):
            raise InputError(f"{begin} is a link to another folder. Give the path of a file, or remove the link.")
    except (OSError, ValueError) as error:  # a dangling or circular link, a path too long, one that holds a NUL
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{begin} cannot be written: {reason}.") from None
    return place.parent


def expanded(path: str | Path) -> Path:
    """The path with a home folder for its `~`; that of no such user stays as it is, and is found missing."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


@contextmanager
def open_whole(path: str | Path) -> Iterator[IO[bytes]]:
    """A handle to write a file through, under a temporary name in the same folder; the end of the block renames it.

    The data is flushed to the disk before the rename, so that a power cut cannot leave an empty file
    under the final name. On any error in the block the temporary file is removed and the old file stays.

    Raises:
        InputError: as `check_target`.
        OSError: a fault of the machine, such as a full disk.
    """
    path = Path(path)
    _check_kind(path, "", False)
    with parents_made(path):
        # A short name: the file's own may be as long as names can be.
        temporary = path.with_name(f".{path.name[:30]}.{secrets.token_hex(4)}{TEMPORARY}")
        try:
            with temporary.open("xb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def parents_made(path: Path) -> Iterator[None]:
    """Make the folders above; on an error in the block, those that were made and are empty go again."""
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if machine_fault(error) is None:
                raise InputError(f"{printable(path)} cannot be written: {error.strerror}.") from None
            raise
        yield
    except BaseException:
        with suppress(OSError):  # whatever else is in there by now stays
            for folder in made:
                folder.rmdir()
        raise


def remove_temporaries(folder: str | Path) -> None:
    """Remove what a process that was killed while it wrote into the folder left there; nobody may write meanwhile."""
    for path in Path(folder).glob(f".*{TEMPORARY}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_whole(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file through `write(handle)`, whole, as `open_whole` does."""
    with open_whole(path) as handle:
        write(handle)


def write_folder(path: str | Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files, whole, in place of one that holds files of these names alone.

    Raises:
        InputError: as `check_target`, or the folder holds something else.
    """
    path = Path(os.path.realpath(path))
    check_target(path, folder=True)
    others = [entry.name for entry in path.iterdir() if entry.name not in files] if path.exists() else []
    if others:
        raise InputError(f"{printable(path)} cannot be replaced: it holds {printable(others[0])}. Give a new folder.")
    with (
        parents_made(path),
        tempfile.TemporaryDirectory(prefix=f".{path.name[:30]}.", suffix=TEMPORARY, dir=path.parent) as temporary,
    ):
        new = Path(temporary) / "new"
        for name, content in files.items():
            with open_whole(new / name) as handle:
                handle.write(content)
        if path.exists():
            os.replace(path, Path(temporary) / "old")
        os.replace(new, path)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole; what UTF-8 cannot hold, as in odd file names, is escaped."""
    write_whole(path, lambda handle: handle.write(text.encode(errors="backslashreplace")))


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, whole."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the same keys below a line of these, whole; None is an empty cell."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())


def write_torch(path: str | Path, value: Any) -> None:
    """`torch.save`, whole. An error of the disk is the OSError that it was, and not what torch makes of it."""
    with open_whole(path) as handle:
        try:
            torch.save(value, handle)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder last through a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
