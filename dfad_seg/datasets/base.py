"""What every data set of (image, label mask) file pairs shares: listing, safe reading, checks, samples."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from dfad_seg.common.errors import InputError, nearest
from dfad_seg.datasets.metainfo import MetaInfo

Transform = Callable[[np.ndarray, np.ndarray, "int | None"], tuple[np.ndarray, np.ndarray]]
"""`(image uint8 (H, W, 3) RGB, mask uint8 (H, W), seed or None) -> (image, mask)`, sizes may change."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""What is decoded, whatever a file is called. Pillow knows dozens more, and hands PostScript to another program."""
MAX_PIXELS = 80_000_000
"""Larger images are refused before they are decoded: a small file can unpack to gigabytes."""
MAX_BYTES = 2**30
"""Larger image files are refused before they are read."""


class Pair(NamedTuple):
    """One sample on disk: its unique name and two files."""

    name: str
    """The image's file stem, or what a split file calls it; in sub-folders `folder/stem`."""
    image: Path
    mask: Path


class SegmentationDataset(Dataset):
    """Images and label masks from files.

    A subclass sets `metainfo` and `splits` and writes `find_pairs`; it overrides `read_labels` where its
    masks are not plain index images, and `load_image` and `load_labels` where they are not files of their own.
    One that takes options takes them by keyword, sets `metainfo` and `splits` from them before it calls this
    constructor, and overrides `describe` and `present_splits`.

    `dataset[i]` and `dataset[i, seed]` give a dict:
      "image": float32 (3, H, W), RGB in [0, 1];
      "mask":  int64 (H, W), labels 0 .. num_classes - 1, `metainfo.ignore_index` where ignored;
      "name":  the image's name (its file stem);  "index": i;
      "size":  (H, W) of the files, before the transform.
    `seed` goes to the transform and settles all its random choices; without it they are free.

    Raises `InputError` for a missing or empty folder, an image without a mask, and, on access, for files
    that cannot be decoded, a mask of another size than its image and labels outside the classes.
    """

    metainfo: MetaInfo
    splits: tuple[str, ...] = ("train", "val", "test")
    spare_masks = False
    """Whether masks that belong to no image of any split are in order; a check reports them otherwise."""

    def __init__(self, root: str | Path, split: str, *, transform: Transform | None = None) -> None:
        self.root = Path(root).expanduser()
        self.split = split
        self.transform = transform
        if not self.root.is_dir():
            raise InputError(f"no data set folder at {self.root}; give the folder that holds the images.")
        if split not in self.splits:
            raise InputError(
                f"unknown split '{split}' of {type(self).__name__}.{nearest(split, self.splits)} "
                f"Known: {', '.join(self.splits)}."
            )
        self._pairs = self.find_pairs()
        if not self._pairs:
            raise InputError(f"split '{split}' of the data set at {self.root} holds no images.")

    @classmethod
    def describe(cls, root: str | Path, **options: Any) -> MetaInfo:
        """The classes that the data set will have, found without listing its images.  Options are the constructor's."""
        return cls.metainfo

    @classmethod
    def present_splits(cls, root: str | Path, **options: Any) -> tuple[str, ...]:
        """The splits that a check of the whole data set goes through."""
        return cls.splits

    def find_pairs(self) -> list[Pair]:
        """The files of `self.split` under `self.root`, in a fixed order."""
        raise TypeError(f"{type(self).__name__} must define find_pairs().")

    def read_labels(self, path: Path) -> np.ndarray:
        """The mask file as uint8 (H, W) labels, the ignored ones already `metainfo.ignore_index`."""
        return read_index_mask(path)

    def load_image(self, index: int) -> np.ndarray:
        """The image as uint8 (H, W, 3) RGB."""
        return read_image(self._pairs[index].image)

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
        """The sample as on disk: image uint8 (H, W, 3) RGB and checked labels uint8 (H, W)."""
        image, mask = self.load_image(index), self.load_labels(index)
        if mask.shape != image.shape[:2]:
            raise InputError(
                f"{self.mask_name(index)} is {mask.shape[1]}x{mask.shape[0]} but its image {self.image_path(index)} is "
                f"{image.shape[1]}x{image.shape[0]}; they must have one size."
            )
        # A table look-up over 256 values is much faster than np.unique over all pixels.
        present = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
        classes, ignore = self.metainfo.num_classes, self.metainfo.ignore_index
        wrong = [int(label) for label in present if label >= classes and label != ignore]
        if wrong:
            raise InputError(
                f"{self.mask_name(index)} holds label {', '.join(map(str, wrong[:5]))}; labels of "
                f"{type(self).__name__} are 0-{classes - 1}, ignored {ignore}."
            )
        return image, mask

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        index, seed = key if isinstance(key, tuple) else (key, None)
        image, mask = self.read(index)
        size = mask.shape
        if self.transform is not None:
            image, mask = self.transform(image, mask, seed)
        planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return {
            "image": planes.float().div_(255.0),
            "mask": torch.from_numpy(np.ascontiguousarray(mask)).long(),
            "name": self._pairs[index].name,
            "index": index,
            "size": size,
        }


def read_image(path: Path) -> np.ndarray:
    """An image file as uint8 (H, W, 3) RGB, in the pixel order stored (an EXIF rotation is not applied,
    because masks are drawn on stored pixels).  Raises `InputError` if unreadable or over `MAX_PIXELS`."""
    image = _open(path, "image")
    if image.mode.startswith(("I", "F")):
        raise InputError(f"image {path} has pixels of type '{image.mode}'; 8-bit images are needed.")
    return _decode(image.convert, "RGB", path=path, what="image")


def read_index_mask(path: Path) -> np.ndarray:
    """A mask file whose pixels are label numbers, as uint8 (H, W): 8-bit grey, or a palette image, of
    which the indices count and not the colours.  Raises `InputError` for anything else."""
    mask = _open(path, "mask")
    _require_index(mask, path)
    return _decode(lambda: mask, path=path, what="mask")


def read_colour_mask(path: Path) -> np.ndarray:
    """A mask file whose pixels are colours, as uint8 (H, W, 3) RGB."""
    mask = _open(path, "mask")
    if mask.mode not in ("RGB", "RGBA", "P"):
        raise InputError(f"mask {path} has pixels of type '{mask.mode}'; a colour mask (RGB) is needed.")
    return _decode(mask.convert, "RGB", path=path, what="mask")


def read_mask(path: Path) -> np.ndarray:
    """A mask file as it is: uint8 (H, W) indices as from `read_index_mask`, or uint8 (H, W, 3) RGB colours."""
    mask = _open(path, "mask")
    if mask.mode in ("RGB", "RGBA"):
        return _decode(mask.convert, "RGB", path=path, what="mask")
    _require_index(mask, path)
    return _decode(lambda: mask, path=path, what="mask")


def is_image(path: PurePath) -> bool:
    """Whether a file counts as an image, by its name; hidden files do not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def list_images(folder: Path, what: str) -> dict[str, Path]:
    """File stem -> path of the image files in `folder`, sorted; `InputError` if missing or empty."""
    if not folder.is_dir():
        raise InputError(f"no {what} folder at {folder}.")
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot list the {what} folder {folder}: {error.strerror or error}.") from None
    found: dict[str, Path] = {}
    for path in paths:
        if not is_image(path):
            continue
        if path.stem in found:
            raise InputError(f"two {what}s named '{path.stem}' in {folder}: {found[path.stem].name}, {path.name}.")
        found[path.stem] = path
    if not found:
        raise InputError(f"the {what} folder {folder} holds no {' / '.join(IMAGE_SUFFIXES)} files.")
    return found


def pair_up(images: dict[str, Path], masks: dict[str, Path], folder: Path, *, mask_stem: str = "{}") -> list[Pair]:
    """Each image with the mask of the same stem (or `mask_stem.format(stem)`); spare masks are left out.

    Raises `InputError` naming the images that have no mask in `folder`.
    """
    missing = [name for name in images if mask_stem.format(name) not in masks]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        named = ", ".join(str(images[name]) for name in missing[:3])
        raise InputError(f"no mask in {folder} for image {named}{more}.")
    return [Pair(name, path, masks[mask_stem.format(name)]) for name, path in images.items()]


def _require_index(mask: Image.Image, path: Path) -> None:
    if mask.mode not in ("L", "P"):
        raise InputError(
            f"mask {path} has pixels of type '{mask.mode}'; an index mask is needed, 8-bit grey or palette, "
            "whose pixel values are the label numbers."
        )


def _open(path: Path, what: str) -> Image.Image:
    try:
        size = path.stat().st_size
        data = b"" if size > MAX_BYTES else path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror or error}.") from None
    if size > MAX_BYTES:
        raise InputError(f"{what} {path} has {size >> 20} MiB, more than {MAX_BYTES >> 20}; make it smaller first.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise InputError(f"{what} {path} is not a readable image file ({len(data)} bytes).") from None
    except Image.DecompressionBombError:
        raise InputError(_too_large(path, what)) from None
    if image.width * image.height > MAX_PIXELS:
        raise InputError(_too_large(path, what))
    return image


def _too_large(path: Path, what: str) -> str:
    return f"{what} {path} has more than {MAX_PIXELS // 10**6} million pixels; make it smaller first."


def _decode(load: Callable[..., Image.Image], *arguments: str, path: Path, what: str) -> np.ndarray:
    try:
        return np.array(load(*arguments))
    except Exception as error:  # Pillow's decoders raise many types for damaged data
        raise InputError(f"{what} {path} is damaged and cannot be decoded: {error}.") from None
