"""Whether a data set is in order: files that fit together, and masks whose values can be what the classes say."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dfad_seg.common.errors import InputError
from dfad_seg.common.labels import label_counts
from dfad_seg.common.progress import ProgressReport
from dfad_seg.datasets import MetaInfo, SegmentationDataset, chosen_kind

MUCH = 0.1  # of the pixels are ignored, from which a class that never occurs looks like the ignored value
DIM, FEW = 0.15, 8  # of 8 images with a stated range no value is beyond: 12 bits in 16 reach a sixteenth
ENOUGH = 6  # masks per class are read before a class counts as one that never occurs


class Census:
    """Counts the labels of masks of a data set, one after the other."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.info: MetaInfo = dataset.metainfo
        self.label_map = hasattr(dataset.options, "label_map")
        self.masks = 0
        self.pixels = np.zeros(256, np.int64)
        """Pixels by label."""
        self._outer = 0
        """Masks that hold the first class and the ignored label, and nothing else."""
        self._beside = False
        """Whether a mask holds the second class beside the ignored label."""

    def add(self, mask: np.ndarray) -> None:
        """Count a mask, uint8 (H, W)."""
        counts = label_counts(mask)
        self.masks += 1
        self.pixels += counts
        present, ignored = np.flatnonzero(counts[: self.info.num_classes]).tolist(), counts[self.info.ignore_index] > 0
        self._outer += present == [0] and bool(ignored)
        self._beside |= bool(ignored) and 1 in present

    def suspicion(self, *, complete: bool) -> str | None:
        """What looks like masks of 0 and 255 where 255 is a class; `complete`: all masks of the set were counted."""
        info, total = self.info, max(1, int(self.pixels.sum()))
        ignored = self.pixels[info.ignore_index] / total
        absent = [i for i in range(info.num_classes) if not self.pixels[i]]
        class_id = absent[0] if absent else info.num_classes - 1 if info.num_classes > 1 else 1
        name = f"class '{info.classes[class_id]}'" if class_id < info.num_classes else "a second class"
        cure = f"label_map: {{255: {class_id}}}" + ("" if self.label_map else " of the data set type folders")
        if info.num_classes <= 2 and self._outer and not self._beside:
            found = f"{self._outer} of {self.masks} masks hold nothing but 0 and the ignored value 255"
        elif ignored and len(absent) >= info.num_classes - 1 > 0:
            found = f"{ignored:.1%} of the pixels of {self.masks} masks are ignored, and hardly any class occurs"
        elif self.label_map and absent and ignored >= MUCH and (complete or self.masks >= ENOUGH * info.num_classes):
            found = f"{name} never occurs in {self.masks} masks, and {ignored:.1%} of their pixels are ignored"
        else:
            return None
        return f"{found}. What is ignored is not scored. If 255 means {name}, say so with {cure}."


def label_warnings(dataset: SegmentationDataset, *, sample: int = 64) -> list[str]:
    """What a user must know before a data set is trained on or scored: files left out, and values that look wrong.

    Reads `sample` masks, evenly spread. A mask that cannot be read is left to whoever needs it.
    """
    said = list(dataset.notes)
    if getattr(dataset.options, "img_range", None):
        top = max(float(dataset.load_photo(index).pixels.max()) for index in _spread(len(dataset), FEW))
        said += [f"its brightest value is at {top:.1%} of img_range. Is it the files' range?"] if top < DIM else []
    if dataset.mask_files:
        census = Census(dataset)
        for index in _spread(len(dataset), sample):
            try:
                census.add(dataset.load_labels(index))
            except InputError:
                continue
        said += filter(None, [census.suspicion(complete=sample >= len(dataset))])
    return [f"the data set at {dataset.root}: {text}" for text in said]


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

    def in_order(self) -> dict[str, int]:
        """The counts; raises InputError with every fault, if there is one."""
        if self.problems:
            several = [f"{len(self.problems)} problems:"] if len(self.problems) > 1 else []
            raise InputError("\n  ".join([*several, *self.problems[:20]]))
        return self.counts

    def lines(self) -> list[str]:
        """The sizes, the share of each class and the notes, as text."""
        if self.census is None or not self.sizes:
            return list(self.notes)
        common = ", ".join(f"{count} of {size[1]}x{size[0]}" for size, count in self.sizes.most_common(3))
        others = f" and {len(self.sizes) - 3} other sizes" if len(self.sizes) > 3 else ""
        info, pixels = self.census.info, self.census.pixels
        shares = np.append(pixels[: info.num_classes], pixels[info.ignore_index]) / pixels.sum()
        names = [*info.classes, "ignored"]
        listed = ", ".join(f"{name} {share:.2%}" for name, share in zip(names, shares, strict=True))
        return [f"images read: {common}{others}", f"pixels: {listed}", *self.notes]


def inspect_dataset(
    type: str,
    root: str | Path,
    *,
    any_count: bool = False,
    options: Mapping[str, Any] | None = None,
    sample: int | None = None,
) -> Inspection:
    """Read every image and mask of the data set `DATASETS[type]` at `root`, and collect all faults.

    Faults are a missing folder, an image without a mask, an unreadable file, differing sizes, a wrong label, values
    that look like a class and are ignored; and, unless `any_count`, splits that have not the published number of
    images.  `options` are those of the type.  `sample`: read so many images per split at
    most, evenly spread.

    Raises `InputError` only if the type or its options are wrong, or the folder is not a data set of the type.
    """
    kind, values = chosen_kind(type, root, options or {})
    expected = None if any_count else kind.published
    found = Inspection()
    chosen = {}
    for split in kind.present_splits(values):
        if expected is not None and not expected.get(split):
            continue
        try:
            dataset = kind(values, split)
        except InputError as error:
            found.problems.append(str(error))
            continue
        dataset.channels = None
        found.census = found.census or Census(dataset)
        found.counts[split] = len(dataset)
        found.notes += [note for note in dataset.notes if note not in found.notes]
        if expected is not None and len(dataset) != expected[split]:
            found.problems.append(
                f"{values.root}: split '{split}' has {len(dataset)} images; {expected[split]} are expected."
            )
        # An image may be in several splits, as in VOC's train and trainval.
        names = dataset.names
        for index in _spread(len(dataset), sample):
            chosen[names[index], dataset.image_path(index), dataset.mask_path(index)] = (dataset, index)
    if found.census is None:
        return found
    with ProgressReport(f"check {type}", len(chosen), unit="image") as progress:
        for dataset, index in chosen.values():
            try:
                image, mask = dataset.read(index)
            except InputError as error:
                found.problems.append(str(error))
            else:
                found.sizes[image.shape[:2]] += 1
                found.census.add(mask)
            progress.advance()
    suspicion = found.census.suspicion(complete=sample is None)
    if dataset.mask_files and suspicion is not None:
        found.problems.append(f"{values.root}: {suspicion}")
    return found


def _spread(count: int, sample: int | None) -> list[int]:
    """Up to `sample` places of `count`, evenly spread; all without it."""
    if sample is None or sample >= count:
        return list(range(count))
    return [index * count // sample for index in range(sample)]
