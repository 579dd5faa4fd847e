"""Files that torch wrote: nothing in them is packed, and every part carries a checksum that torch does not look at."""

from __future__ import annotations

import zipfile
from pathlib import Path

from dfad_seg.common.errors import InputError


def check_archive(path: str | Path, what: str) -> None:
    """Read a file of `torch.save` once and compare every part with its checksum (CRC-32).

    A disk's or a copy's flipped bit would otherwise load as another network, and a packed part of a few kilobytes fill
    the memory.

    Raises:
        InputError: no regular file, no such archive, packed, or damaged; it begins with `what`.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{what} {path} is no regular file.")
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
            if not stored or sum(part.file_size for part in parts) > path.stat().st_size:
                raise InputError(f"{what} {path} is packed, and torch.save packs nothing. Is it the right file?")
            bad = archive.testzip()
    except FileNotFoundError:
        raise InputError(f"{what} {path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror or error}.") from None
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{what} {path} is damaged or no file of torch.save ({type(error).__name__}).") from None
    if bad is not None:
        raise InputError(f"{what} {path} is damaged: its part {bad!r} is not what was written. Take another copy.")
