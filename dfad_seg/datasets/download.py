"""Fetching a file over HTTP(S), and unpacking parts of an archive."""

from __future__ import annotations

import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from dfad_seg.common.errors import InputError, machine_fault, printable

Progress = Callable[[int, "int | None"], None]
"""`progress(done, total)`; `total` is None where it is not known."""

MAX_DOWNLOAD = 4 * 1024**3
MAX_FILE = 32 * 1024**2
"""Bytes of one file in an archive."""
MAX_FILES = 100_000
MAX_UNPACKED = 8 * 1024**3
"""Bytes of all files together that an archive may unpack to."""
MAX_RATIO = 200
"""Bytes that one byte of an archive may unpack to, as a mean over all its files; images gain next to nothing."""

Choose = Callable[[PurePosixPath], "PurePosixPath | None"]
"""A member's path in an archive → the path to unpack it to, or None to leave it out."""


def download(url: str, target: Path, *, checksum: str | None = None, progress: Progress | None = None) -> None:
    """Fetch `url` into `target`, whole or not at all.

    Args:
        url: of a file.
        target: where to put it.
        checksum: `algorithm:digest` that it must have, such as `md5:6cd6…`.
        progress: told how many bytes there are.

    Raises:
        InputError: an unreachable server, an HTTP error, a connection that breaks off, too large a file, or another
            checksum.
    """
    import pooch
    import requests

    shown = printable(re.sub(r"//[^/@]*@", "//", url))  # without a password
    if not url.lower().startswith(("http://", "https://")):
        raise InputError(f"cannot download '{shown}': only http:// and https:// addresses are taken.")
    pooch.get_logger().setLevel("ERROR")  # it would print the checksum of a file that has none known
    fetch = pooch.HTTPDownloader(progressbar=_Bar(shown, progress), chunk_size=2**18)
    try:
        pooch.retrieve(url, checksum, fname=target.name, path=target.parent, downloader=fetch)
    except requests.RequestException as error:
        # The end of a long chain of causes says the most, such as "[Errno 111] Connection refused".
        reason = printable(str(error).rsplit(": ", 1)[-1].rstrip("\"')"))
        reason = reason if error.response is None else f"the server answers {error.response.status_code}"
        raise InputError(f"cannot download {shown}: {reason}. Is there a connection to it?") from None
    except ValueError as error:  # the checksum
        raise InputError(f"cannot download {shown}: {printable(error)}.") from None
    except OSError as error:
        if machine_fault(error) is not None:
            raise
        raise InputError(f"cannot write {target}: {error.strerror or error}.") from None


class _Bar:
    """What pooch's downloader tells of its progress."""

    def __init__(self, url: str, progress: Progress | None) -> None:
        self.total, self._done, self._url, self._progress = 0, 0, url, progress

    def update(self, count: int) -> None:
        self._done += count
        if max(self._done, self.total) > MAX_DOWNLOAD:
            raise InputError(f"{self._url} sends more than {MAX_DOWNLOAD >> 30} GiB; stopped.")
        if self._progress is not None:
            self._progress(min(self._done, self.total or self._done), self.total or None)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass


def unpack(archive: Path, target: Path, choose: Choose) -> int:
    """Write members of a zip or tar file, compressed or not, into the folder `target`; returns how many.

    Raises:
        InputError: in most cases before anything is written, for a file that is not a whole archive, members that point
            outside it (`..`, absolute paths), links and devices that `choose` wants, and sizes beyond the limits above.
    """
    try:
        most = MAX_RATIO * max(archive.stat().st_size, 2**20)
        opened: zipfile.ZipFile | tarfile.TarFile
        with zipfile.ZipFile(archive) if zipfile.is_zipfile(archive) else tarfile.open(archive) as opened:
            wanted: list[tuple[Path, Callable[[], bytes]]] = []
            total = 0
            members = _zipped(opened) if isinstance(opened, zipfile.ZipFile) else _tarred(opened)
            for count, (name, size, plain, read) in enumerate(members):
                place = choose(_safe_path(name, archive))
                if place is None and count < 10 * MAX_FILES:
                    continue
                total += size
                if not plain:
                    raise InputError(f"{archive} holds the link or device '{printable(name)}'; not unpacked.")
                if size > MAX_FILE:
                    raise InputError(f"{archive} holds '{printable(name)}' of {size} bytes, too large; not unpacked.")
                if len(wanted) >= MAX_FILES or place is None:
                    raise InputError(f"{archive} holds more than {count} files; it is another archive.")
                if total > MAX_UNPACKED or total > most:
                    raise InputError(f"{archive} would unpack to {total} bytes or more; stopped.")
                wanted.append((target / place, read))
            for path, read in wanted:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(read())
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError) as e:
        raise InputError(f"{archive} is not an intact archive: {printable(e)}.") from None
    return len(wanted)


Member = tuple[str, int, bool, Callable[[], bytes]]
"""Name, bytes, whether it is a plain file, and what reads it."""


def _zipped(opened: zipfile.ZipFile) -> Iterator[Member]:
    for info in opened.infolist():
        if not info.is_dir():
            plain = not stat.S_ISLNK(info.external_attr >> 16)
            yield info.filename, info.file_size, plain, lambda info=info: opened.read(info)  # type: ignore[misc]


def _tarred(opened: tarfile.TarFile) -> Iterator[Member]:
    for info in opened:
        if not info.isdir():
            yield info.name, info.size, info.isreg(), lambda info=info: opened.extractfile(info).read()  # type: ignore


def _safe_path(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise InputError(f"{archive} holds '{printable(name)}', which points outside the archive; not unpacked.")
    return path
