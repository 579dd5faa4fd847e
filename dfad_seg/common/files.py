"""Whole-file writes: a reader sees the old file or the new one, never a part."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

TEMPORARY = ".tmp"
"""The end of a temporary name; it begins with a dot."""


@contextmanager
def open_whole(path: str | Path) -> Iterator[IO[bytes]]:
    """A handle to write a file through, under a temporary name in the same folder; the end of the block renames it.

    The data is flushed to the disk before the rename, so that a power cut cannot leave an empty file
    under the final name. On any error in the block the temporary file is removed and the old file stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_temporaries(folder: str | Path) -> None:
    """Remove what a process that was killed while it wrote into the folder left there; nobody may write meanwhile."""
    for path in Path(folder).glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def write_whole(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file through `write(handle)`, whole, as `open_whole` does."""
    with open_whole(path) as handle:
        write(handle)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole."""
    write_whole(path, lambda handle: handle.write(text.encode()))


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, whole."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_torch(path: str | Path, value: Any) -> None:
    """`torch.save`, whole. An error of the disk is the OSError that it was, and not what torch makes of it."""
    with open_whole(path) as handle:
        watched = _Watched(handle)
        try:
            torch.save(value, watched)  # type: ignore[arg-type]
        except RuntimeError:
            if watched.error is not None:
                raise watched.error from None
            raise


class _Watched:
    """A handle that remembers why it could not write."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._handle.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._handle.flush()


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder last through a power cut, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def umask() -> int:
    """The permissions that this process takes away from new files."""
    # mkstemp makes files private; a run directory should follow the user's umask like any other file.
    mask = os.umask(0)
    os.umask(mask)
    return mask
