"""Images as a network's channels want them: grey or more, and files of more than 8 bits with a stated range."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from dfad_seg.common.errors import InputError, quiet, require
from dfad_seg.common.images import MAX_BYTES, MAX_PIXELS, PHOTO_FORMATS, STATE_RANGE, Photo, decoding, read_photo
from dfad_seg.common.reading import read_bytes

Range = tuple[float, float]


def read_image(path: Path, channels: int | None = 3, span: Range | None = None, what: str = "image") -> Photo:
    """An image of so many channels: uint8 (H, W, K) as it is stored, or float32 in [0, 1] of a file with more bits.

    8-bit photos of one or three channels are read as by `read_photo`. All else is PNG, TIFF, a NumPy array (.npy) or
    DICOM (.dcm, needs pydicom; rescaled as the file says, such as to Hounsfield units). One stored channel serves all
    of three; three that are equal serve as one.

    Args:
        channels: K; None: as many as the file has.
        span: the sample values that become 0 and 1; what lies outside is cut off.

    Raises:
        InputError: it cannot be read, has other channels, or more than 8 bits and no `span`.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None and span is None and channels in (1, 3, None):
        photo = read_photo(path, what)
        return photo._replace(pixels=_fitted(photo.pixels, channels, f"{what} {path}"))
    with decoding(path, what):
        samples, inverted = (reader or _decoded)(read_bytes(path, what, limit=MAX_BYTES))
    if samples.ndim == 2:
        samples = samples[..., None]
    pixels = samples.shape[0] * samples.shape[1] if samples.ndim == 3 and samples.size else 0
    if not 0 < pixels <= MAX_PIXELS or samples.dtype.kind not in "iuf":
        raise InputError(
            f"{what} {path} holds {samples.dtype} {samples.shape}; one image (H, W, channels) of numbers is needed, of"
            f" at most {MAX_PIXELS // 10**6} million pixels."
        )
    if samples.dtype == np.uint8:
        if span is not None:
            raise InputError(f"{what} {path} has 8-bit samples, whose range is 0 to 255: leave out img_range.")
        return Photo(_fitted(samples, channels, f"{what} {path}"), 1)
    if span is None:
        raise InputError(f"{what} {path} has {samples.dtype} samples; {STATE_RANGE}.")
    if not np.isfinite(samples).all():
        raise InputError(f"{what} {path} has values that are not finite.")
    least, most = samples.min(), samples.max()
    if most < span[0] or least > span[1]:
        raise InputError(
            f"{what} {path} has values from {least:g} to {most:g}, all of them outside img_range, {span[0]:g} to"
            f" {span[1]:g}. Correct the range."
        )
    low, high = span[::-1] if inverted else span
    scaled = ((samples.astype(np.float32) - low) / (high - low)).clip(0, 1)
    return Photo(_fitted(scaled, channels, f"{what} {path}"), 1)


def _fitted(samples: np.ndarray, channels: int | None, what: str) -> np.ndarray:
    have = samples.shape[2]
    if channels in (None, have):
        return samples
    if have == 1 and channels == 3:
        return samples.repeat(3, axis=2)
    if have == 3 and channels == 1 and (samples == samples[..., :1]).all():
        return np.ascontiguousarray(samples[..., :1])
    raise InputError(f"{what} has {have} channels, and the network takes {channels} (in_channels).")


Decoded = tuple[np.ndarray, bool]
"""Samples (H, W) or (H, W, K), and whether the highest one is black."""


def _judge_size(width: int, height: int, more: int = 1) -> None:
    """Before anything is decoded, as a small file can unpack to gigabytes; `more`: pictures, or fours of channels."""
    if width * height * max(1, more) > MAX_PIXELS:
        raise ValueError(f"it has more than {MAX_PIXELS // 10**6} million pixels")


def _decoded(data: bytes) -> Decoded:
    if data[:2] in (b"II", b"MM"):  # Pillow does not open every kind of TIFF that OpenCV decodes
        big, handle = 43 in data[2:4], io.BytesIO(data)
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if big else 8])
        handle.seek(tags.next)
        tags.load(handle)
        _judge_size(tags[256], tags[257], tags.get(277, 1) // 4)
    else:
        _judge_size(*Image.open(io.BytesIO(data), formats=PHOTO_FORMATS).size)
    found, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if not found or len(pages) != 1:
        raise ValueError(f"it holds {len(pages)} pictures that OpenCV reads, and one is needed")
    samples = np.asarray(pages[0])
    if samples.ndim == 3 and samples.shape[2] >= 3:  # OpenCV's order is blue, green, red
        samples = samples[..., [2, 1, 0, *range(3, samples.shape[2])]]
    return samples, False


def _array(data: bytes) -> Decoded:
    return np.load(io.BytesIO(data), allow_pickle=False), False


def _dicom(data: bytes) -> Decoded:
    require("dicom", "pydicom")
    import pydicom
    from pydicom.pixels import apply_modality_lut

    with quiet():
        if pydicom.uid.DeflatedExplicitVRLittleEndian.encode() in data:
            raise ValueError("it is deflated as a whole; save it with another transfer syntax")
        file: Any = pydicom.dcmread(io.BytesIO(data))
        _judge_size(file.Rows, file.Columns, int(file.get("NumberOfFrames") or 1))
        samples = np.asarray(apply_modality_lut(file.pixel_array, file))
    return samples, file.PhotometricInterpretation == "MONOCHROME1"


_READERS: dict[str, Callable[[bytes], Decoded]] = {".npy": _array, ".dcm": _dicom}
