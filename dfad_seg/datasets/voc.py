"""Pascal VOC 2012 segmentation (Everingham et al. 2010), with the additional labels of SBD (Hariharan et al. 2011)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dfad_seg.common.errors import InputError
from dfad_seg.datasets.base import (
    Pair,
    SegmentationDataset,
    list_images,
    pair_up,
    read_mask,
)
from dfad_seg.datasets.listing import read_listing, require_listed
from dfad_seg.datasets.metainfo import VOC

SPLIT_SIZES = {"train": 1464, "val": 1449, "trainval": 2913, "train_aug": 10582}
"""Images per split of the published sets."""

LISTS = Path("ImageSets", "Segmentation")
IMAGES, MASKS, AUGMENTED_MASKS = "JPEGImages", "SegmentationClass", "SegmentationClassAug"


class Voc(SegmentationDataset):
    """VOC 2012 in its official layout; `root` is the folder VOC2012, VOCdevkit, or the one that holds VOCdevkit.

    A split's members are the lines of `ImageSets/Segmentation/<split>.txt`, images `JPEGImages/*.jpg`.  Masks
    are `SegmentationClass/*.png`, and for `train_aug` (VOC's training images and SBD's) `SegmentationClassAug/*.png`.
    A line of `train_aug.txt` may be a bare id or, as some lists have it, the paths of the image and its mask.

    Mask pixels are 0-20 and 255 = ignored: the indices of palette and grey images, never their colours.  Masks that
    have no index (RGB) are decoded by VOC's palette; another colour is an error.
    """

    metainfo = VOC
    splits = tuple(SPLIT_SIZES)
    spare_masks = True

    @classmethod
    def present_splits(cls, root: str | Path, **options: Any) -> tuple[str, ...]:
        folder = find_voc(Path(root).expanduser())
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

    def read_labels(self, path: Path) -> np.ndarray:
        pixels = read_mask(path)
        return pixels if pixels.ndim == 2 else decode_colours(pixels, path)


def find_voc(root: Path) -> Path:
    """The folder VOC2012 in or above which `root` lies; `InputError` if there is none."""
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / LISTS).is_dir():
            return folder
    raise InputError(
        f"no Pascal VOC 2012 at {root}: neither it nor VOC2012 or VOCdevkit/VOC2012 in it holds {LISTS.as_posix()}/."
    )


def decode_colours(colours: np.ndarray, path: Path) -> np.ndarray:
    """Labels, uint8 (H, W), of a mask in VOC's colours, uint8 (H, W, 3) RGB: 0-20, 255 where the colour is (224, 224,
    192).  Raises `InputError` naming the first pixel of any other colour and the file `path`."""
    labels = indices_from_colours(colours)
    wrong = (labels < 0) | ((labels >= VOC.num_classes) & (labels != VOC.ignore_index))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise InputError(
            f"mask {path} has colour {tuple(int(value) for value in colours[row, column])} at row {row}, column "
            f"{column}; it is none of VOC's 21 class colours nor (224, 224, 192) for ignored pixels."
        )
    return labels.astype(np.uint8)


def indices_from_colours(colours: np.ndarray) -> np.ndarray:
    """The index 0-255 of each colour of `bit_palette(256)`, int16 (H, W); -1 for colours that it does not have.

    `colours`: uint8 (H, W, 3) RGB.
    """
    labels = np.zeros(colours.shape[:2], np.int16)
    for channel, bits in enumerate((3, 3, 2)):
        table = np.full(256, -1, np.int16)
        for value in range(1 << bits):
            level = sum((value >> place & 1) << 7 - place for place in range(bits))
            table[level] = sum((value >> place & 1) << 3 * place + channel for place in range(bits))
        labels |= table[colours[..., channel]]  # -1 has all bits set, so it stays -1
    return labels
