"""Pascal VOC 2012 segmentation (Everingham et al. 2010), with the additional labels of SBD (Hariharan et al. 2011)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dfad_seg.common.errors import InputError
from dfad_seg.common.palette import Colour, bit_palette
from dfad_seg.datasets.base import Pair, SegmentationDataset, pair_up, require_folder
from dfad_seg.datasets.listing import list_images, read_listing, require_listed
from dfad_seg.datasets.metainfo import VOC

LISTS = Path("ImageSets", "Segmentation")
IMAGES, MASKS, AUGMENTED_MASKS = "JPEGImages", "SegmentationClass", "SegmentationClassAug"


class Voc(SegmentationDataset):
    """VOC 2012 in its official layout; `root` is the folder VOC2012, VOCdevkit, or the one that holds VOCdevkit.

    A split's members are the lines of `ImageSets/Segmentation/<split>.txt`, images `JPEGImages/*.jpg`.  Masks
    are `SegmentationClass/*.png`, and for `train_aug` (VOC's training images and SBD's) `SegmentationClassAug/*.png`.
    A line of `train_aug.txt` may be a bare id or, as some lists have it, the paths of the image and its mask.

    Mask pixels are 0-20 and 255 = ignored.
    """

    metainfo = VOC
    published = {"train": 1464, "val": 1449, "trainval": 2913, "train_aug": 10582}
    splits = tuple(published)

    @classmethod
    def present_splits(cls, options: Any) -> tuple[str, ...]:
        folder = find_voc(require_folder(options.root))
        return tuple(s for s in cls.splits if s in ("train", "val") or (folder / LISTS / f"{s}.txt").is_file())

    def find_pairs(self) -> list[Pair]:
        folder = find_voc(self.root)
        listing = folder / LISTS / f"{self.split}.txt"
        augmented = self.split == "train_aug"
        if augmented and not (listing.is_file() and (folder / AUGMENTED_MASKS).is_dir()):
            raise InputError(
                f"split train_aug needs SBD's masks in {folder / AUGMENTED_MASKS} and their list {listing}; "
                "both are published together and are not part of VOC 2012 itself."
            )
        names = read_listing(listing, only_stems=augmented)
        images = list_images(folder / IMAGES, "image")
        masks = folder / (AUGMENTED_MASKS if augmented else MASKS)
        require_listed(names, images, listing, folder / IMAGES)
        return pair_up({name: images[name] for name in names}, list_images(masks, "mask"), masks)

    def file_colours(self) -> dict[int, Colour]:
        return super().file_colours() | {VOC.ignore_index: bit_palette(256)[255]}


def find_voc(root: Path) -> Path:
    """The folder VOC2012 in or above which `root` lies; `InputError` if there is none."""
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / LISTS).is_dir():
            return folder
    raise InputError(
        f"no Pascal VOC 2012 at {root}: neither it nor VOC2012 or VOCdevkit/VOC2012 in it holds {LISTS.as_posix()}/."
    )
