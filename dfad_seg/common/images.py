"""The one decoder of image files: photos, and masks whose samples are ids.

An id must be the number that its writer meant. So a mask is read only where that is certain: losslessly stored, of one
picture, not turned, not transparent, its samples not scaled to 8 bits by a decoder. Everything else is refused.
"""

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dfad_seg.common.errors import InputError, explained, quiet
from dfad_seg.common.labels import label_counts, mapped
from dfad_seg.common.palette import Colour, bit_palette
from dfad_seg.common.reading import read_bytes

PHOTO_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""What is decoded, whatever a file is called. Pillow knows dozens more, and hands PostScript to another program."""
KNOWN_FORMATS = (*PHOTO_FORMATS, "JPEG2000", "AVIF")
MAX_PIXELS = 80_000_000
"""Larger images are refused before they are decoded: a small file can unpack to gigabytes."""
STATE_RANGE = (
    "state which values are black and white as dataset.img_range: [0, 65535] for all of 16 bits, [0, 4095] for 12,"
    " [0, 1] for floats in it"
)
MAX_BYTES = 2**30
"""Larger image files are refused before they are read."""

_ORIENTATION = 274
_BITS, _COMPRESSION, _PHOTOMETRIC = 258, 259, 262  # tags of TIFF
_LOSSLESS_TIFF = (1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000)
_PNG_ADVICE = "Save the ids as an 8-bit grey PNG, from the original labels."
_BY_ID = bit_palette(256)


class Photo(NamedTuple):
    """A decoded image as it is stored, and how it is to be turned."""

    pixels: np.ndarray
    """uint8 (H, W, 3), RGB."""
    orientation: int
    """EXIF's 1 to 8; 1 is upright."""

    def upright(self) -> np.ndarray:
        """The pixels as every viewer shows them."""
        rows = -1 if self.orientation in (3, 4, 6, 7) else 1
        columns = -1 if self.orientation in (2, 3, 7, 8) else 1
        turned = self.pixels[::rows, ::columns]
        return np.ascontiguousarray(turned.swapaxes(0, 1) if self.orientation > 4 else turned)


def read_photo(path: Path, what: str = "image") -> Photo:
    """A photo: 8-bit grey, palette or RGB, with or without an opacity, which is left out.

    Sample values are taken as they are: no colour profile or gamma is applied, as in OpenCV and torchvision.

    Raises:
        InputError: it cannot be read or decoded, has more than `MAX_PIXELS`, several pictures (but for the previews
            that cameras add to a JPEG), other samples than 8 bits, or inks (CMYK) or other colours instead of RGB.
    """
    image, data = _open(path, what)
    if image.mode.startswith(("I", "F")) or _bits(image, data) > 8:
        raise InputError(f"{what} {path} has {_samples(image, data)}; {STATE_RANGE}.")
    if image.mode in ("CMYK", "LAB"):
        raise InputError(f"{what} {path} has colours of type {image.mode}; convert it to RGB first.")
    if image.format not in ("JPEG", "MPO"):
        _one_picture(image, path, what)
    turned = _orientation(image) if image.format == "TIFF" else 1
    pixels = _decode(image, path, what, "RGB")
    if turned != 1:
        raise InputError(f"{what} {path} is a TIFF file with an orientation tag; save it upright, without the tag.")
    return Photo(pixels, 1 if image.format == "TIFF" else _orientation(image))


class IndexReader:
    """Reads masks whose samples are ids: grey samples of 1, 2, 4 or 8 bits, and palette images.

    The ids are the samples as they stand in the file. A palette is a second witness: where it shows the colours of the
    data set in another order, a tool has renumbered the file, and the ids are found by its colours. Where its colours
    contradict the data set's otherwise, or contradict those of a file read before, the file is refused.

    Args:
        colours: id → colour of the data set; ids of which nobody knows the colour are absent.
        declared: whether these are the set's own colours, and not merely those that it is shown in.
    """

    def __init__(self, colours: Mapping[int, Colour] | None = None, *, declared: bool = True) -> None:
        self._colours = {id: (int(r), int(g), int(b)) for id, (r, g, b) in (colours or {}).items()}
        self._ids = {colour: id for id, colour in self._colours.items()}
        if len(self._ids) < len(self._colours):
            self._ids = {}  # one colour for several classes tells nothing
        self._declared = declared
        self._seen: dict[int, tuple[Colour, Path]] = {}

    def read(self, path: Path, what: str = "mask", *, size: tuple[int, int] | None = None) -> np.ndarray:
        """The ids in a file, uint8 (H, W).

        Args:
            what: the file is, for messages.
            size: (H, W) that it must have; another is refused before it is decoded.

        Raises:
            InputError: it cannot be read, has another size, or its ids are not certain.
        """
        image, data = _open_mask(path, what)
        if size is not None and (image.height, image.width) != tuple(size):
            raise InputError(f"{what} {path} is {image.width}x{image.height}, and {size[1]}x{size[0]} is needed.")
        if image.mode not in ("1", "L", "P"):
            raise InputError(
                f"{what} {path} has {_samples(image, data)}; an index mask is needed, 8-bit grey or palette, whose "
                f"values are the ids. {_PNG_ADVICE}"
            )
        ids = _decode(image, path, what, image.mode)
        if image.mode == "P":
            return self._by_palette(ids, image, path, what)
        # Decoders spread fewer than 8 bits over 0-255 (but for those of one bit, which are false and true).
        return ids if image.mode == "1" else ids // (255 // (2 ** _bits(image, data) - 1))

    def _by_palette(self, ids: np.ndarray, image: Image.Image, path: Path, what: str) -> np.ndarray:
        flat = image.getpalette("RGB") or []
        palette: list[Colour] = [tuple(flat[i : i + 3]) for i in range(0, len(flat) - 2, 3)]  # type: ignore[misc]
        used = np.flatnonzero(label_counts(ids)[: len(palette)]).tolist()
        in_order = len(used) > 1 and all(palette[id] in (_BY_ID[id], (id, id, id)) for id in used)
        if not in_order and any(self._elsewhere(palette, id) for id in used):
            known = all(palette[id] in self._ids for id in used)
            if self._declared and known:
                table = np.zeros(256, np.uint8)
                for id in used:
                    table[id] = self._ids[palette[id]]
                return mapped(ids, table)
            if self._declared or (known and len(used) > 1):
                id = next(id for id in used if self._elsewhere(palette, id))
                raise InputError(
                    f"{what} {path} shows value {id} in the colour {palette[id]} of class {self._ids[palette[id]]}: a "
                    "tool has changed the order of its palette, so that its values are not the ids. "
                    + (_PNG_ADVICE if self._declared else f"{_PNG_ADVICE} Or give the set's own palette.")
                )
        for id in used:
            colour, first = self._seen.setdefault(id, (palette[id], path))
            if colour != palette[id]:
                raise InputError(
                    f"{what} {path} shows value {id} in the colour {palette[id]}, and {first} in {colour}: a tool has "
                    f"changed the order of a palette, so that its values are not the ids. {_PNG_ADVICE}"
                )
        return ids

    def _elsewhere(self, palette: list[Colour], id: int) -> bool:
        """Whether a value shows the colour of another class, which that class's own value does not show."""
        owner = self._ids.get(palette[id], id)
        return owner != id and not (owner < len(palette) and palette[owner] == palette[id])


def _open_mask(path: Path, what: str) -> tuple[Image.Image, bytes]:
    image, data = _open(path, what, KNOWN_FORMATS)
    tags: Any = getattr(image, "tag_v2", {})
    if image.format not in ("PNG", "TIFF", "BMP") or (
        image.format == "TIFF" and tags.get(_COMPRESSION, 1) not in _LOSSLESS_TIFF
    ):
        raise InputError(
            f"{what} {path} is a {image.format} file{' with lossy compression' if image.format == 'TIFF' else ''}, and "
            f"such a file need not hold the values that were put into it. {_PNG_ADVICE}"
        )
    if (image.format == "TIFF" and tags.get(_PHOTOMETRIC) not in (1, 2, 3)) or (
        image.format == "BMP" and data[28:30] not in (b"\x08\0", b"\x18\0")
    ):
        raise InputError(f"{what} {path} is a {image.format} file of an unusual kind. {_PNG_ADVICE}")
    _one_picture(image, path, what)
    turned = image.format == "TIFF" and _orientation(image) != 1  # the tag is gone once it is decoded
    with decoding(path, what):
        image.load()
    if turned or _orientation(image) != 1:
        raise InputError(
            f"{what} {path} has an orientation tag, so that viewers show it turned, and nobody can know which way its "
            "pixels belong to the image. Save it upright, without the tag."
        )
    return image, data


def _open(path: Path, what: str, formats: tuple[str, ...] = PHOTO_FORMATS) -> tuple[Image.Image, bytes]:
    data = read_bytes(path, what, limit=MAX_BYTES)
    try:
        with quiet():
            image = Image.open(io.BytesIO(data), formats=formats)
        too_large = image.width * image.height > MAX_PIXELS
    except Image.DecompressionBombError:
        too_large = True
    except Exception:  # Pillow's parsers of headers raise many types for damaged data
        raise InputError(f"{what} {path} is not a readable image file ({len(data)} bytes).") from None
    if too_large:
        raise InputError(f"{what} {path} has more than {MAX_PIXELS // 10**6} million pixels; make it smaller first.")
    return image, data


def _one_picture(image: Image.Image, path: Path, what: str) -> None:
    with decoding(path, what):
        count = getattr(image, "n_frames", 1)
    if count != 1:
        raise InputError(f"{what} {path} holds {count} pictures, and one is needed. Save the right one alone.")


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata: viewers show such a file as it is stored
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits per sample as they are in the file, the most of all channels."""
    if image.format == "TIFF":
        return int(np.max(getattr(image, "tag_v2", {}).get(_BITS, 1)))
    return data[24] if image.format == "PNG" else 8


def _samples(image: Image.Image, data: bytes) -> str:
    return f"{_bits(image, data)}-bit samples of type '{image.mode}'"


def _decode(image: Image.Image, path: Path, what: str, mode: str) -> np.ndarray:
    pixels = np.empty((image.height, image.width, 3) if mode == "RGB" else (image.height, image.width), np.uint8)
    rows = max(1, 2**20 // image.width)  # at once, as Pillow copies an image three times to convert and hand it over
    with decoding(path, what):
        for top in range(0, image.height, rows):
            part = image.crop((0, top, image.width, min(top + rows, image.height)))
            pixels[top : top + rows] = np.asarray(part.convert(mode))
    return pixels


def decoding(path: Path, what: str) -> AbstractContextManager:
    """Whatever a decoder raises for damaged data within the block, which is many types, becomes an `InputError`."""
    return explained(f"{what} {path} is damaged and cannot be decoded")
