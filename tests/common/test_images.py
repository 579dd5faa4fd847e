"""Image files by their bytes: the ids that stand in a mask, the pixels of a photo, or one clear refusal."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from dfad_seg.common.errors import InputError
from dfad_seg.common.images import IndexReader, read_photo
from dfad_seg.common.palette import bit_palette

IDS = np.array([[0, 1, 2, 3, 1], [3, 2, 0, 0, 1], [1, 1, 2, 3, 0]], np.uint8)
COLOURS = {0: (0, 0, 0), 1: (200, 10, 20), 2: (10, 200, 30), 3: (20, 30, 250), 255: (224, 224, 192)}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(ids: np.ndarray, depth: int = 8, *chunks: bytes, kind: int = 0, adam7: bool = False) -> bytes:
    """A PNG by the standard, without any library: samples of `depth` bits, grey (kind 0) or palette (3)."""

    def rows(part: np.ndarray) -> bytes:
        bits = (part[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        return b"".join(b"\0" + np.packbits(row.ravel()).tobytes() for row in bits)

    starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [ids[r::i, c::j] for r, c, i, j in starts] if adam7 else [ids]
    data = b"".join(rows(part) for part in parts if part.size)
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], depth, kind, 0, 0, int(adam7))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(
        b"IDAT", zlib.compress(data)
    ) + chunk(b"IEND", b"")  # fmt: skip


def plte(*colours: tuple[int, int, int]) -> bytes:
    return chunk(b"PLTE", bytes(value for colour in colours for value in colour))


def saved(image: Image.Image | np.ndarray, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def file(tmp_path: Path, data: bytes, name: str = "m.png") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


GAMMA = chunk(b"gAMA", struct.pack(">I", 22000))
PROFILE = chunk(b"iCCP", b"p\0\0" + zlib.compress(b"no profile"))
ALPHA = chunk(b"tRNS", bytes([0, 255, 128, 255]))
IN_ORDER = plte(*(COLOURS[i] for i in range(4)))
READ: dict[str, bytes] = {
    "8 bits": png(IDS),
    "4 bits": png(IDS, 4),
    "2 bits": png(IDS, 2),
    "interlaced": png(IDS, adam7=True),
    "a gamma": png(IDS, 8, GAMMA),
    "a colour profile": png(IDS, 8, PROFILE),
    "a palette": png(IDS, 8, IN_ORDER, kind=3),
    "a palette with opacities": png(IDS, 8, IN_ORDER, ALPHA, kind=3),
    "a palette of other colours": png(IDS, 8, plte((9, 8, 7), (6, 5, 4), (3, 2, 1), (1, 1, 1)), kind=3),
    "a palette of one colour": png(IDS, 8, plte(*[(7, 7, 7)] * 4), kind=3),
    "a palette that ends early": png(IDS, 8, plte(COLOURS[0], COLOURS[1], COLOURS[2]), kind=3),
    "the colours in another order": png(
        (IDS + 1) % 4, 8, plte(COLOURS[3], COLOURS[0], COLOURS[1], COLOURS[2]), kind=3
    ),
    "TIFF": saved(IDS, "TIFF"),
    "BMP": saved(IDS, "BMP"),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_ids_are_those_in_the_file(tmp_path: Path, kind: str) -> None:
    found = IndexReader(COLOURS).read(file(tmp_path, READ[kind]), size=(3, 5))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, IDS)


def test_a_reduced_palette_is_understood_by_its_colours(tmp_path: Path) -> None:
    """A tool kept the colours that occur, in the order in which they occur."""
    data = png(np.array([[0, 1, 2]], np.uint8), 8, plte(COLOURS[255], COLOURS[3], COLOURS[0]), kind=3)
    np.testing.assert_array_equal(IndexReader(COLOURS).read(file(tmp_path, data)), [[255, 3, 0]])


SHUFFLED = png(IDS, 8, plte(COLOURS[0], COLOURS[2], (1, 2, 3), COLOURS[3]), kind=3)
FRAMES = [Image.fromarray(IDS), Image.fromarray(IDS + 1)]
REFUSED: dict[str, tuple[bytes, str]] = {
    "JPEG": (saved(IDS, "JPEG"), "m.png is a JPEG file.*Save the ids as an 8-bit grey PNG"),
    "WebP, lossless": (saved(np.dstack([IDS] * 3), "WEBP", lossless=True), "is a WEBP file"),
    "TIFF of JPEG": (saved(IDS, "TIFF", compression="jpeg"), "is a TIFF file with lossy compression"),
    "PGM of another scale": (b"P5 5 3 3\n" + IDS.tobytes(), "is a PPM file"),
    "16 bits": (saved(IDS.astype(np.uint16), "PNG"), "16-bit samples.*index mask is needed"),
    "white is 0": (saved(IDS, "TIFF", tiffinfo={262: 0}), "of an unusual kind"),
    "RGB": (saved(np.dstack([IDS] * 3), "PNG"), "index mask is needed"),
    "grey and opacity": (saved(Image.fromarray(IDS).convert("LA"), "PNG"), "index mask is needed"),
    "turned PNG": (saved(IDS, "PNG", exif=exif(6)), "has an orientation tag"),
    "animation": (saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "holds 2 pictures"),
    "colours half known": (SHUFFLED, r"shows value 1 in the colour \(10, 200, 30\) of class 2"),
    "another size": (png(IDS.T.copy()), "is 3x5, and 5x3 is needed"),
    "a text": (b"ids", "not a readable image"),
    "cut": (png(IDS)[:60], "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_certain_is_refused(tmp_path: Path, kind: str) -> None:
    data, message = REFUSED[kind]
    with pytest.raises(InputError, match=message) as caught:
        IndexReader(COLOURS).read(file(tmp_path, data), size=(3, 5))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_colours_that_nobody_declared(tmp_path: Path) -> None:
    """Pascal VOC's, in which a set is shown, may be met by chance: black is no proof, nor is a permutation."""
    shown = IndexReader(COLOURS, declared=False)
    by_chance = png(IDS % 2 + 254, 8, plte(*[(5, 5, 5)] * 254, (90, 80, 70), COLOURS[0]), kind=3)
    np.testing.assert_array_equal(shown.read(file(tmp_path, by_chance)), IDS % 2 + 254)
    with pytest.raises(InputError, match="give the set's own palette"):
        shown.read(file(tmp_path, READ["the colours in another order"]))


def test_a_palette_by_the_ids_is_in_order_whatever_the_classes_colours(tmp_path: Path) -> None:
    """Many tools give every file Pascal VOC's palette or greys: 1 dark red, 3 olive, which may be another class's."""
    reader = IndexReader({0: (128, 128, 128), 1: (128, 0, 0), 2: (2, 2, 2), 3: (0, 0, 0), 5: (128, 128, 0)})
    greys = [(i, i, i) for i in range(4)]
    for palette in (bit_palette(4), greys):
        np.testing.assert_array_equal(reader.read(file(tmp_path, png(IDS, 8, plte(*palette), kind=3))), IDS)
        reader = IndexReader({i: greys[3 - i] for i in range(4)})


def test_files_that_contradict_each_other(tmp_path: Path) -> None:
    reader = IndexReader()
    first = plte((1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4))
    reader.read(file(tmp_path, png(IDS, 8, first, kind=3), "a.png"))
    reader.read(file(tmp_path, png(IDS & 1, 8, plte((1, 1, 1), (2, 2, 2), (9, 9, 9)), kind=3), "b.png"))
    with pytest.raises(InputError, match=r"c.png shows value 2 in the colour \(9, 9, 9\), and .*a.png in \(3, 3, 3\)"):
        reader.read(file(tmp_path, png(IDS, 8, plte((1, 1, 1), (2, 2, 2), (9, 9, 9), (4, 4, 4)), kind=3), "c.png"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_photos_know_how_they_are_turned(tmp_path: Path, orientation: int, format: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    options = {"lossless": True} if format == "WEBP" else {}
    path = file(tmp_path, saved(pixels, format, exif=exif(orientation), **options))
    photo = read_photo(path)
    assert photo.orientation == orientation
    np.testing.assert_array_equal(photo.upright(), ImageOps.exif_transpose(Image.open(path)))
    if format != "JPEG":
        np.testing.assert_array_equal(photo.pixels, pixels)


def test_photos_of_other_kinds(tmp_path: Path) -> None:
    grey = np.array([[0, 85, 255]], np.uint8)
    for data in (png(grey), png(grey // 85, 2), png(grey, 8, GAMMA), saved(grey, "GIF"), b"P5 3 1 3\n\0\1\3"):
        np.testing.assert_array_equal(read_photo(file(tmp_path, data)).pixels, np.dstack([grey] * 3))
    for data, message in (
        (saved(Image.new("CMYK", (2, 2)), "JPEG"), "colours of type CMYK; convert it to RGB"),
        (saved(grey.astype(np.uint16), "PNG"), "dataset.img_range"),
        (saved(grey.astype(np.float32), "TIFF"), "dataset.img_range"),
        (saved(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "holds 2 pictures"),
        (saved(np.zeros((2, 2, 3), np.uint8), "TIFF", exif=exif(6)), "TIFF file with an orientation tag"),
        (saved(np.zeros((2, 2, 3), np.uint8), "JPEG2000"), "not a readable image"),
        (saved(np.zeros((99, 99, 3), np.uint8), "JPEG")[:-60], "is damaged"),
        (empty_png(0, 32), "not a readable image"),
        (empty_png(48, 32), "is damaged"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a readable image"),
        (empty_png(10_000, 9_000), "million pixels"),
        (empty_png(100_000, 100_000), "million pixels"),
    ):
        with pytest.raises(InputError, match=message):
            read_photo(file(tmp_path, data))


def empty_png(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("read", [lambda path: read_photo(path), lambda path: IndexReader().read(path)])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    for name, message in (
        ("pipe", "no regular file"),
        ("folder", "Is a directory"),
        ("circle", "symbolic links"),
        ("device", "no regular file"),
        ("absent", "No such file"),
        ("n" * 300, "name too long"),
        ("nul\0", "null"),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path / f"{name}.png")
