"""Fetching a file over HTTP(S), continued where an earlier attempt broke off; unpacking parts of an archive."""

from __future__ import annotations

import hashlib
import http.client
import lzma
import re
import ssl
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from dfad_seg.common.errors import InputError

Progress = Callable[[int, "int | None"], None]
"""`progress(done, total)`; `total` is None where it is not known."""

MAX_DOWNLOAD = 4 * 1024**3
MAX_MEMBER = 32 * 1024**2
MAX_MEMBERS = 20_000
MAX_TAR_MEMBERS = 100_000
MAX_UNPACKED = 8 * 1024**3
"""Bytes of all files together that an archive may unpack to."""
MAX_RATIO = 200
"""Bytes that one byte of a zip archive may unpack to, as a mean over all its files; images gain next to nothing."""
_NETWORK = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
    ValueError,  # an address that urllib cannot parse
)
_CHUNK = 1 << 18
_TIMEOUT = 30  # seconds without a byte


def download(url: str, target: Path, *, progress: Progress | None = None) -> None:
    """Fetch `url` into `target`, bytes counted against what the server announced.

    While it runs the data lies in `<target>.part`.  A later call asks the server for the missing rest
    (HTTP Range, tied to the file's ETag where there is one) and starts over if the server sends the whole.
    Raises `InputError` in one line for an unreachable server, an HTTP error or a connection that breaks off;
    the part stays for the next attempt.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise InputError(f"cannot download '{url}': only http:// and https:// addresses are taken.")
    part, tag = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.etag")
    have = part.stat().st_size if part.exists() else 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _request(url, have, tag) as response:
            if response.status == 206 and _range_start(response) == have:
                mode = "ab"
            elif response.status == 200:
                mode, have = "wb", 0
            else:
                part.unlink(missing_ok=True)
                raise InputError(f"{url} answered status {response.status} with an unfit range; run again.")
            length = response.headers.get("Content-Length")
            total = have + int(length) if length and length.isdigit() else None
            _remember_tag(tag, response.headers.get("ETag"))
            with open(part, mode) as handle:
                while block := response.read(_CHUNK):
                    handle.write(block)
                    have += len(block)
                    if have > MAX_DOWNLOAD:
                        raise InputError(f"{url} sends more than {MAX_DOWNLOAD >> 30} GiB; stopped.")
                    if progress is not None:
                        progress(have, total)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: the part is whole, or not of this file
            _finish_or_drop(error.headers.get("Content-Range", ""), have, part, url)
            total = have
        else:
            raise InputError(f"cannot download {url}: the server answers {error.code} {error.reason}.") from None
    except _NETWORK as error:
        reason = getattr(error, "reason", None) or error
        kept = f" {have} bytes are kept in {part}; run again to continue." if have else ""
        raise InputError(f"cannot download {url}: {reason}. Is there a connection to it?{kept}") from None
    except OSError as error:
        raise InputError(f"cannot write {part}: {error.strerror or error}.") from None
    if total is not None and have < total:
        raise InputError(f"the connection to {url} broke off after {have} of {total} bytes; run again to continue.")
    part.replace(target)
    tag.unlink(missing_ok=True)


def unzip(archive: Path, target: Path, choose: Callable[[PurePosixPath], PurePosixPath | None]) -> int:
    """Write members of a zip file into the folder `target`; returns how many.

    `choose` maps a member's path to the path below `target`, or to None to leave it out.
    Raises `InputError`, in most cases before anything is written, for a file that is not a whole zip archive,
    members that point outside it (`..`, absolute paths), links, and sizes beyond `MAX_MEMBER` bytes.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [info for info in opened.infolist() if not info.is_dir()]
            if len(members) > MAX_MEMBERS:
                raise InputError(f"{archive} holds {len(members)} files; at most {MAX_MEMBERS} are expected.")
            wanted = []
            for info in members:
                place = choose(_safe(info, archive))
                if place is not None:
                    wanted.append((info, target / place))
            total = sum(info.file_size for info, _ in wanted)
            _check_total(archive, total)
            if total > MAX_RATIO * max(archive.stat().st_size, 2**20):
                raise InputError(f"{archive} would unpack to {total} bytes, far more than an image archive; stopped.")
            for info, path in wanted:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(opened.read(info))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{archive} is not an intact zip archive: {error}.") from None
    return len(wanted)


def untar(archive: Path, target: Path, choose: Callable[[PurePosixPath], PurePosixPath | None]) -> int:
    """`unzip` for a tar file, compressed or not; links and devices that `choose` leaves out are no error."""
    try:
        with tarfile.open(archive) as opened:
            wanted, total = [], 0
            for count, member in enumerate(opened):
                if count > 10 * MAX_TAR_MEMBERS:
                    raise InputError(f"{archive} holds more than {count} entries; it is another archive.")
                if member.isdir():
                    continue
                place = choose(_safe_path(member.name, member.size, archive))
                if place is None:
                    continue
                if not member.isreg():
                    raise InputError(f"{archive} holds the link or device '{member.name}'; not unpacked.")
                wanted.append((member, target / place))
                total += member.size
                _check_total(archive, total)
                if len(wanted) > MAX_TAR_MEMBERS:
                    raise InputError(f"{archive} holds more than {MAX_TAR_MEMBERS} files; it is another archive.")
            for member, path in wanted:
                content = opened.extractfile(member)
                assert content is not None
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
        raise InputError(f"{archive} is not an intact tar archive: {error}.") from None
    return len(wanted)


def file_md5(path: Path) -> str:
    """The md5 sum of a file, in hexadecimal; `InputError` if it cannot be read."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with open(path, "rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from None
    return digest.hexdigest()


def _check_total(archive: Path, size: int) -> None:
    if size > MAX_UNPACKED:
        raise InputError(f"{archive} unpacks to more than {MAX_UNPACKED >> 30} GiB; stopped.")


def _safe(info: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    if stat.S_ISLNK(info.external_attr >> 16):
        raise InputError(f"{archive} holds the link '{info.filename}'; not unpacked.")
    return _safe_path(info.filename, info.file_size, archive)


def _safe_path(name: str, size: int, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        raise InputError(f"{archive} holds '{name}', which points outside the archive; not unpacked.")
    if size > MAX_MEMBER:
        raise InputError(f"{archive} holds '{name}' of {size} bytes, too large; not unpacked.")
    return path


def _request(url: str, have: int, tag: Path) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "dfad-seg", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if tag.exists():
            request.add_header("If-Range", tag.read_text(encoding="latin-1"))
    return urllib.request.urlopen(request, timeout=_TIMEOUT)


def _range_start(response: http.client.HTTPResponse) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _remember_tag(path: Path, etag: str | None) -> None:
    # If-Range takes strong tags only.
    if etag and not etag.startswith("W/"):
        path.write_text(etag, encoding="latin-1")
    else:
        path.unlink(missing_ok=True)


def _finish_or_drop(content_range: str, have: int, part: Path, url: str) -> None:
    match = re.fullmatch(r"bytes \*/(\d+)", content_range.strip())
    if match and int(match[1]) == have:
        return
    part.unlink(missing_ok=True)
    raise InputError(f"the part of {url} downloaded earlier fits no longer and was removed; run again.")
