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


@contextmanager
def open_whole(path: str | Path) -> Iterator[IO[bytes]]:
    """A handle to write a file through, under a temporary name in the same folder; the end of the block renames it.

    The data is flushed to the disk before the rename, so that a power cut cannot leave an empty file
    under the final name. On any error in the block the temporary file is removed and the old file stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
    """`torch.save`, whole."""
    write_whole(path, lambda handle: torch.save(value, handle))


def umask() -> int:
    """The permissions that this process takes away from new files."""
    # mkstemp makes files private; a run directory should follow the user's umask like any other file.
    mask = os.umask(0)
    os.umask(mask)
    return mask
