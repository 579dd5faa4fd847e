"""Fetching a file over HTTP(S), and unpacking an archive."""

from __future__ import annotations

import re
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path

from dfad_seg.common.errors import InputError, machine_fault, printable


def download(url: str, target: Path, *, checksum: str | None = None) -> None:
    """Fetch `url` into `target`, whole or not at all.

    Args:
        url: of a file.
        target: where to put it.
        checksum: `algorithm:digest` that it must have, such as `md5:6cd6…`.

    Raises:
        InputError: an unreachable server, an HTTP error, a connection that breaks off, or another checksum.
    """
    import pooch
    import requests

    shown = printable(re.sub(r"//[^/@]*@", "//", url))  # without a password
    if not url.lower().startswith(("http://", "https://")):
        raise InputError(f"cannot download '{shown}': only http:// and https:// addresses are taken.")
    pooch.get_logger().setLevel("ERROR")  # it would print the checksum of a file that has none known
    fetch = pooch.HTTPDownloader(progressbar=True, chunk_size=2**18)
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


def unpack(archive: Path, target: Path) -> None:
    """Unpack a zip or tar file, compressed or not, into the folder `target`, and nowhere else.

    Raises:
        InputError: the file is not a whole archive, or a tar file has links or paths that lead out of it.
    """
    try:
        if zipfile.is_zipfile(archive):
            shutil.unpack_archive(archive, target, "zip")
        else:
            shutil.unpack_archive(archive, target, "tar", filter="data")
    except (shutil.ReadError, zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        raise InputError(f"{archive} is not an intact archive: {printable(error)}.") from None
