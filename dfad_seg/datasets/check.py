"""Reading a whole data set to see whether it is in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import expanded
from dfad_seg.common.progress import ProgressReport
from dfad_seg.datasets import CamVid, NyuV2, SegmentationDataset, StreetScenes, Voc, camvid, chosen_kind, nyuv2, voc
from dfad_seg.datasets.census import Census, spread, takes_label_map
from dfad_seg.datasets.listing import is_image
from dfad_seg.datasets.street_scenes import read_record

_PUBLISHED: dict[type[SegmentationDataset], Mapping[str, int]] = {
    CamVid: camvid.SPLIT_SIZES,
    NyuV2: nyuv2.SPLIT_SIZES,
    Voc: voc.SPLIT_SIZES,
}


@dataclass
class Inspection:
    """What a check found."""

    counts: dict[str, int] = field(default_factory=dict)
    """Images per split that could be listed."""
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Images read by (height, width)."""
    census: Census | None = None
    notes: list[str] = field(default_factory=list)
    """What was left out, and why; no fault."""
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The sizes, the share of each class and the notes, as text."""
        if self.census is None or not self.sizes:
            return list(self.notes)
        common = ", ".join(f"{count} of {size[1]}x{size[0]}" for size, count in self.sizes.most_common(3))
        others = len(self.sizes) - 3
        info, pixels = self.census.info, self.census.pixels
        shares = np.append(pixels[: info.num_classes], pixels[info.ignore_index]) / pixels.sum()
        listed = ", ".join(
            f"{name} {share:.2%}" for name, share in zip([*info.classes, "ignored"], shares, strict=True)
        )
        sizes = f"images read: {common}" + (f" and {others} other sizes" if others > 0 else "")
        return [sizes, f"pixels: {listed}", *self.notes]


def check_dataset(type: str, root: str | Path, *, any_count: bool = False) -> dict[str, int]:
    """Images per split of a data set in order; raises `InputError` for the first fault of `inspect_dataset`."""
    found = inspect_dataset(type, root, any_count=any_count)
    if found.problems:
        raise InputError(found.problems[0])
    return found.counts


def inspect_dataset(
    type: str,
    root: str | Path,
    *,
    any_count: bool = False,
    options: Mapping[str, Any] | None = None,
    sample: int | None = None,
) -> Inspection:
    """Read every image and mask of the data set `DATASETS[type]` at `root`, and collect all faults.

    Faults are a missing folder, an image without a mask or a mask without an image, an unreadable file, differing
    sizes, a wrong label, values that look like a class and are ignored; and, unless `any_count`, splits that have not
    the published number of images or (street scenes) the recorded one.  `options` are those of the type.  `sample`:
    read so many images per split at most, evenly spread.

    Raises `InputError` only if the type or its options are wrong, or the folder is not a data set of the type.
    """
    kind, values = chosen_kind(type, root, options or {})
    root = expanded(root)
    expected = None if any_count else _expected_counts(kind, root)
    inspection = Inspection()
    problems = inspection.problems
    datasets = []
    for split in kind.present_splits(values):
        if expected is not None and not expected.get(split):
            continue
        try:
            dataset = kind(values, split)
            dataset.channels = None
        except InputError as error:
            problems.append(str(error))
            continue
        datasets.append(dataset)
        inspection.counts[split] = len(dataset)
        inspection.notes += [note for note in dataset.notes if note not in inspection.notes]
        if expected is not None and len(dataset) != expected[split]:
            problems.append(f"{root}: split '{split}' has {len(dataset)} images; {expected[split]} are expected.")
    if not datasets:
        return inspection
    if not kind.spare_masks:
        problems += _spare_masks(datasets)
    census = inspection.census = Census(datasets[-1].metainfo)
    # An image may be in several splits, as in VOC's train and trainval.
    chosen = {}
    for dataset in datasets:
        names = dataset.names
        for index in spread(len(dataset), sample):
            chosen[names[index], dataset.image_path(index), dataset.mask_path(index)] = (dataset, index)
    with ProgressReport(f"check {type}", len(chosen), unit="image") as progress:
        for dataset, index in chosen.values():
            try:
                image, mask = dataset.read(index)
            except InputError as error:
                problems.append(str(error))
            else:
                inspection.sizes[image.shape[:2]] += 1
                census.add(mask)
            progress.advance()
    suspicion = census.suspicion(label_map=takes_label_map(datasets[-1]), complete=sample is None)
    if kind.mask_files and suspicion is not None:
        problems.append(f"{root}: {suspicion}")
    return inspection


def _expected_counts(kind: type[SegmentationDataset], root: Path) -> Mapping[str, int] | None:
    if kind is StreetScenes:
        record = read_record(root)
        if record is None:
            raise InputError(
                f"{root} has no street_scenes.json: its drawing was interrupted, or the folder is another; "
                "draw it again with the street-scenes command."
            )
        return record["counts"]
    return _PUBLISHED.get(kind)


def _spare_masks(datasets: list[SegmentationDataset]) -> Iterator[str]:
    used = {dataset.mask_path(index) for dataset in datasets for index in range(len(dataset))}
    for folder in sorted({path.parent for path in used}):
        spare = [path for path in sorted(folder.iterdir()) if is_image(path) and path not in used]
        if spare:
            yield f"{len(spare)} masks have no image, the first is {spare[0]}."
