"""Published data sets: CamVid, NYU Depth V2, Pascal VOC 2012."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dfad_seg.common.errors import InputError
from dfad_seg.common.palette import Colour, bit_palette
from dfad_seg.datasets.base import MetaInfo, Pair, SegmentationDataset, pair_up, require_folder
from dfad_seg.datasets.listing import list_images, read_listing, require_listed

_CAMVID = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}

CAMVID = MetaInfo(classes=tuple(_CAMVID), palette=tuple(_CAMVID.values()))
"""The 11 classes of CamVid in the order of the SegNet tutorial's label files."""

_VOID = 11


class CamVid(SegmentationDataset):
    """CamVid (Brostow, Fauqueur, Cipolla 2009) as the SegNet tutorial has it:
    `train/ trainannot/ val/ valannot/ test/ testannot/`.

    Images are `.png` or `.jpg`, index masks have labels 0-10 and 11 = void.  Any number of images: a user's own set in
    this layout works too.
    """

    metainfo = CAMVID
    published: Mapping[str, int] | None = {"train": 367, "val": 101, "test": 233}

    def find_pairs(self) -> list[Pair]:
        annotations = self.root / f"{self.split}annot"
        images = list_images(self.root / self.split, "image", self.notes)
        return pair_up(images, list_images(annotations, "mask"), annotations)

    def read_labels(self, path: Path) -> np.ndarray:
        labels = super().read_labels(path)
        return np.where(labels == _VOID, np.uint8(CAMVID.ignore_index), labels)


NYUV2_13 = MetaInfo(
    classes=tuple("bed books ceiling chair floor furniture objects picture sofa table tv wall window".split()),
    palette=bit_palette(14)[1:],
    file_ids=tuple(range(1, 14)),
)
"""The 13 classes of NYUv2 (Couprie et al. 2013); in label files they are 1-13, and 0 is unlabelled."""


class NyuV2(SegmentationDataset):
    """NYUv2 (Silberman et al. 2012) as A. Handa published it: `train/*_NNNN.png` with
    `train_labels_13/*_NNNN.png`, and the same for `test`.

    Label files hold 1-13, and 0 for unlabelled pixels, which are ignored.  The white border of the images is kept.
    """

    metainfo = NYUV2_13
    published = {"train": 795, "test": 654}
    splits = tuple(published)

    def find_pairs(self) -> list[Pair]:
        images, masks = list_images(self.root / self.split, "image"), self.root / f"{self.split}_labels_13"
        return pair_up(_by_number(images), _by_number(list_images(masks, "mask")), masks)

    def read_labels(self, path: Path) -> np.ndarray:
        codes = super().read_labels(path)
        if codes.max() > 13:
            raise InputError(
                f"mask {path} holds label {codes.max()}; NYUv2's 13-class files hold 1-13, and 0 for unlabelled. For "
                "masks with 0-12 and 255 use the type folders."
            )
        return codes - np.uint8(1)  # 0 becomes 255


def _by_number(paths: dict[str, Path]) -> dict[str, Path]:
    """The files by the number at the end of their names, as in `nyu_rgb_0001` and `new_nyu_class13_0001`."""
    found: dict[str, Path] = {}
    for name, path in paths.items():
        match = re.search(r"\d+$", name)
        if match is None or match[0] in found:
            raise InputError(f"{path}: the files of NYUv2 end with different image numbers, such as nyu_rgb_0001.png.")
        found[match[0]] = path
    return found


_VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)

VOC = MetaInfo(classes=tuple(_VOC.split()), palette=bit_palette(21))
"""The 20 classes of Pascal VOC 2012 and the background, in the order and colours of its label files."""

LISTS = Path("ImageSets", "Segmentation")
IMAGES, MASKS, AUGMENTED_MASKS = "JPEGImages", "SegmentationClass", "SegmentationClassAug"


class Voc(SegmentationDataset):
    """VOC 2012 (Everingham et al. 2010) in its official layout; `root` is the folder VOC2012, VOCdevkit, or the one
    that holds VOCdevkit.

    A split's members are the lines of `ImageSets/Segmentation/<split>.txt`, images `JPEGImages/*.jpg`.  Masks
    are `SegmentationClass/*.png`, and for `train_aug` (VOC's training images and SBD's) `SegmentationClassAug/*.png`.
    These and their list are published with SBD.  A line of `train_aug.txt` may be a bare id or, as some lists have it,
    the paths of the image and its mask.

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
