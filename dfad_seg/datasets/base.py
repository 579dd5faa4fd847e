"""What every data set of (image, label mask) pairs shares: names and colours of classes, listing, reading, checks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from dfad_seg.common.errors import InputError, choose, instead_of, printable, some
from dfad_seg.common.files import expanded
from dfad_seg.common.images import IndexReader, Photo
from dfad_seg.common.labels import IGNORED, label_counts
from dfad_seg.common.palette import Colour, bit_palette
from dfad_seg.common.samples import read_image
from dfad_seg.common.values import FileName, Number, options

MAX_NAME = 200
"""Characters in the name of a class."""


@dataclass(frozen=True)
class MetaInfo:
    """What MMSeg calls METAINFO.

    `classes[i]` is the name and `palette[i]` the RGB colour (0-255) of label `i`.  Pixels with
    `ignore_index` carry no label: losses and metrics leave them out.
    """

    classes: tuple[str, ...]
    palette: tuple[Colour, ...] = None  # type: ignore[assignment]
    """Default: the colours of Pascal VOC."""
    named: bool = True
    """False where `classes` are placeholders, as for a teacher of which only the class count is known."""
    ignore_index: ClassVar[int] = IGNORED
    file_ids: tuple[int, ...] | None = None
    """The value that class `i` has in the label files (in COCO files: its category id); None: `i` itself.
    Predictions are written with these values, so that they can be compared with the files by any tool."""

    def __post_init__(self) -> None:
        # Masks are held as 8-bit images until they become tensors.
        if not 1 <= (count := len(self.classes)) <= 255:
            raise InputError(f"a data set has 1 to 255 classes, beside the ignored label; this one has {count}.")
        if len(name := max(self.classes, key=len)) > MAX_NAME:
            found = f"the class name '{printable(name, 40)}' has {len(name)} characters"
            raise InputError(f"{found}, more than {MAX_NAME}.")
        if len(set(self.classes)) != len(self.classes):
            twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
            raise InputError(f"a data set's metainfo names a class twice: {printable(', '.join(twice))}.")
        if self.palette is None:
            object.__setattr__(self, "palette", bit_palette(len(self.classes)))
        if len(self.palette) != len(self.classes):
            raise InputError(
                f"a data set's metainfo has {len(self.classes)} classes but {len(self.palette)} palette "
                "colours; give one RGB colour per class."
            )

    @property
    def num_classes(self) -> int:
        """How many labels count, the ignored one not included."""
        return len(self.classes)

    def ids(self) -> tuple[int, ...]:
        """The value of each class in the label files."""
        return tuple(range(len(self.classes))) if self.file_ids is None else self.file_ids


Transform = Callable[[np.ndarray, np.ndarray, "int | None"], tuple[np.ndarray, np.ndarray]]
"""`(image (H, W, K), uint8 or float32 in [0, 1], mask uint8 (H, W), seed or None) -> (image, mask)`, sizes may
change."""


class Pair(NamedTuple):
    """One sample on disk: its unique name and two files."""

    name: str
    """The image's file stem, or what a split file calls it; in sub-folders `folder/stem`."""
    image: Path
    mask: Path


@options
class Located:
    """The options of a data set that its folder describes alone."""

    root: FileName
    """Folder that holds the set."""


@options
class OwnImages(Located):
    """The options of a data set of anybody's images."""

    img_range: tuple[Number, Number] | None = None
    """The sample values that become 0 and 1 in images of more than 8 bits (PNG, TIFF, .npy, DICOM), which need it."""

    def __post_init__(self) -> None:
        if self.img_range is not None and self.img_range[0] >= self.img_range[1]:
            raise ValueError(f"img_range is {list(self.img_range)}; [low, high] with low < high is needed")


class SegmentationDataset(Dataset):
    """Images and label masks from files.

    A subclass sets `metainfo` and `splits` and writes `find_pairs`; it overrides `read_labels` where its masks are not
    plain index images, and `load_photo` and `load_labels` where they are not files of their own. One that takes options
    sets `metainfo` and `splits` from them before it calls this constructor, and overrides `describe` and
    `present_splits`.

    `dataset[i]` and `dataset[i, seed]` give a dict:
      "image": float32 (K, H, W) in [0, 1]; RGB, but for other `channels`;
      "mask":  int64 (H, W), labels 0 .. num_classes - 1, `metainfo.ignore_index` where ignored;
      "name":  the image's name (its file stem);  "index": i.
    `seed` goes to the transform and settles all its random choices; without it they are free.

    An image with an orientation tag is turned where its mask has the turned size and not the stored one, read as it is
    stored where it is the other way round, and refused where the size cannot tell.

    Raises `InputError` for a missing or empty folder, an image without a mask, and, on access, for files that cannot be
    decoded, a mask of another size than its image and labels outside the classes.
    """

    metainfo: MetaInfo
    splits: tuple[str, ...] = ("train", "val", "test")
    published: Mapping[str, int] | None = None
    """Images per split of the published set."""
    channels: int | None = 3
    """K of the images; None: what each file has."""
    labelled = True
    """Whether its images have labels; if not, all pixels are ignored."""
    mask_files = True
    """Whether masks are images of their own, so that their size and their values were decided by whoever drew them."""
    own_palette = True
    """Whether `metainfo.palette` is how mask files of this set are coloured, and not merely how they are shown."""

    def __init__(self, options: Any, split: str, *, transform: Transform | None = None) -> None:
        self.root = require_folder(options.root)
        self.split, self.options, self.transform = split, options, transform
        self.notes: list[str] = []
        """What was left out, and why; for warnings."""
        choose(dict.fromkeys(self.splits), split, f"{type(self).__name__} split")
        self._reader: IndexReader | None = None
        self._pairs = self.find_pairs()

    @classmethod
    def describe(cls, options: Any) -> MetaInfo:
        """The classes that the data set will have, found without listing its images."""
        return cls.metainfo

    @classmethod
    def present_splits(cls, options: Any) -> tuple[str, ...]:
        """The splits that a check of the whole data set goes through."""
        return cls.splits

    def find_pairs(self) -> list[Pair]:
        """The files of `self.split` under `self.root`, in a fixed order."""
        raise TypeError(f"{type(self).__name__} must define find_pairs().")

    def file_colours(self) -> dict[int, Colour]:
        """The colour of each value of a mask file that has one."""
        return dict(zip(self.metainfo.ids(), self.metainfo.palette, strict=True))

    def read_labels(self, path: Path) -> np.ndarray:
        """The mask file as uint8 (H, W) labels, the ignored ones already `metainfo.ignore_index`."""
        self._reader = self._reader or IndexReader(self.file_colours(), declared=self.own_palette)
        return self._reader.read(path)

    def load_photo(self, index: int) -> Photo:
        """The image as it is stored."""
        return read_image(self._pairs[index].image, self.channels, getattr(self.options, "img_range", None))

    def load_labels(self, index: int) -> np.ndarray:
        """The labels of the image, as `read_labels` gives them."""
        return self.read_labels(self._pairs[index].mask)

    @property
    def names(self) -> list[str]:
        """Names of the images (file stems; `folder/stem` where there are sub-folders), unique, in the set's order."""
        return [pair.name for pair in self._pairs]

    @property
    def ids(self) -> list[str] | list[int]:
        """What a prediction file calls the images: their names; COCO's integer ids where the set has them."""
        return self.names

    def __len__(self) -> int:
        return len(self._pairs)

    def image_path(self, index: int) -> Path:
        return self._pairs[index].image

    def mask_path(self, index: int) -> Path:
        return self._pairs[index].mask

    def mask_name(self, index: int) -> str:
        """What error messages call the labels of an image."""
        return f"mask {self._pairs[index].mask}"

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The sample before the transform: image (H, W, K), uint8 or float32 in [0, 1]; checked labels uint8 (H, W)."""
        mask = self.load_labels(index)
        image = self._placed(self.load_photo(index), mask.shape, index)
        present = np.flatnonzero(label_counts(mask))
        classes, ignore = self.metainfo.num_classes, self.metainfo.ignore_index
        wrong = [int(label) for label in present if label >= classes and label != ignore]
        if wrong:
            raise InputError(
                f"{self.mask_name(index)} holds label {', '.join(map(str, wrong[:5]))}; labels of "
                f"{type(self).__name__} are 0-{classes - 1}, ignored {ignore}."
            )
        return image, mask

    def _placed(self, photo: Photo, size: tuple[int, ...], index: int) -> np.ndarray:
        """The image, turned as its labels are."""
        upright = photo.upright() if photo.orientation != 1 else photo.pixels
        fits_stored, fits_upright = size == photo.pixels.shape[:2], size == upright.shape[:2]
        if photo.orientation != 1 and fits_stored and (fits_upright or not self.mask_files):
            raise InputError(
                f"image {self.image_path(index)} has EXIF orientation {photo.orientation}: viewers show it turned, and "
                "whether its labels belong to the stored pixels or to the turned ones cannot be known. Save it without "
                "the tag, turned as it was when it was labelled."
            )
        if not fits_stored and not fits_upright:
            raise InputError(
                f"{self.mask_name(index)} is {size[1]}x{size[0]} but its image {self.image_path(index)} is "
                f"{upright.shape[1]}x{upright.shape[0]}; they must have one size."
            )
        return photo.pixels if fits_stored else upright

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        index, seed = key if isinstance(key, tuple) else (key, None)
        image, mask = self.read(index)
        if self.transform is not None:
            image, mask = self.transform(image, mask, seed)
        planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return {
            "image": planes.float().div_(255.0) if planes.dtype == torch.uint8 else planes,
            "mask": torch.from_numpy(np.ascontiguousarray(mask)).long(),
            "name": self._pairs[index].name,
            "index": index,
        }


def require_folder(root: str | Path) -> Path:
    """The folder of a data set; `InputError` unless there is one."""
    folder = expanded(root)
    if not folder.is_dir():
        raise InputError(f"no data set folder at {folder}.{instead_of(folder)}")
    return folder


def pair_up(images: dict[str, Path], masks: dict[str, Path], folder: Path) -> list[Pair]:
    """Each image with the mask of the same stem; spare masks are left out.

    Raises `InputError` naming the images that have no mask in `folder`.
    """
    missing = [name for name in images if name not in masks]
    if missing:
        raise InputError(f"no mask in {folder} for image {some([images[name] for name in missing])}.")
    return [Pair(name, path, masks[name]) for name, path in images.items()]
