"""The MATLAB files of NYUv2: the labelled set (HDF5), the class mappings and the split."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from dfad_seg.common.errors import InputError, printable

LABELLED = "nyu_depth_v2_labeled.mat"
MAPPING_40 = "classMapping40.mat"
MAPPING_13 = "class13Mapping.mat"
SPLITS = "splits.mat"

FORTY_TO_13 = (
    12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5,
    7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 7, 7, 6, 7,
)  # fmt: skip
"""The class 1-13 of each of the 40 classes of Gupta et al. 2013 (wall, floor, cabinet, bed, ...), which is what
`class13Mapping.mat` holds; used where that file is not there."""


class NyuFiles:
    """The labelled set in `folder`, read image by image.

    Format: `nyu_depth_v2_labeled.mat` is MATLAB 7.3 and so HDF5, whose axes are MATLAB's in reverse: `images` (N, 3, W,
    H) uint8, `labels` (N, W, H) uint16 with 0 = unlabelled and raw classes 1-894.  `classMapping40.mat` holds
    `mapClass` (1, 894), the class 1-40 of each raw class; `class13Mapping.mat` the struct `classMapping13`, whose
    numeric field has the class 1-13 of each of the 40; `splits.mat` holds `trainNdxs` and `testNdxs`, counted from 1.

    Raises `InputError` for missing or unreadable files, other shapes, and, where they are not installed, for the
    packages h5py and scipy.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LABELLED
        with _opened(self.path) as file:
            shapes = [np.shape(_member(file, key, self.path)) for key in ("images", "labels")]
        images, labels = shapes
        if len(images) != 4 or images[1] != 3 or labels != (images[0], *images[2:]):
            raise InputError(
                f"{self.path} holds images of shape {images} and labels of shape {labels}; (N, 3, W, H) and (N, W, H) "
                "are needed."
            )
        self.count = images[0]
        self.table = _label_codes(folder)

    def image(self, index: int) -> np.ndarray:
        """Image number `index` (from 0), uint8 (H, W, 3) RGB."""
        pixels = self._entry("images", index).transpose(2, 1, 0)
        if pixels.dtype != np.uint8:
            raise InputError(f"{self.path} holds images of type {pixels.dtype}; uint8 is needed.")
        return np.ascontiguousarray(pixels)

    def codes(self, index: int) -> np.ndarray:
        """The label codes of image number `index` (from 0), uint8 (H, W): 1-13, 0 = unlabelled."""
        raw = self._entry("labels", index).T
        if raw.dtype.kind not in "ui" or raw.min() < 0 or raw.max() >= len(self.table):
            raise InputError(
                f"{self.path}: the labels of image {index + 1} are not among the {len(self.table) - 1} classes of "
                f"{MAPPING_40}."
            )
        return self.table[raw]

    def _entry(self, key: str, index: int) -> np.ndarray:
        # Opened anew each time, in a millisecond: an HDF5 handle must not be shared with forked workers.
        with _opened(self.path) as file:
            try:
                return _member(file, key, self.path)[index]
            except (OSError, ValueError) as error:
                raise InputError(f"{self.path} is damaged at '{key}' {index + 1}: {error}.") from None


def read_splits(folder: Path, count: int) -> dict[str, list[int]]:
    """Image numbers (from 0) of "train" and "test" in `folder/splits.mat`; they must be below `count`."""
    path = folder / SPLITS
    content, splits = _load_mat(path), {}
    for split in ("train", "test"):
        key = f"{split}Ndxs"
        numbers = _whole(_member(content, key, path), 1, count, f"{path}: {key}")
        if len(np.unique(numbers)) != numbers.size:
            raise InputError(f"{path}: {key} names an image twice.")
        splits[split] = [int(number) - 1 for number in numbers]
    return splits


def _label_codes(folder: Path) -> np.ndarray:
    """Raw class 0-894 -> code 0-13, uint8."""
    path = folder / MAPPING_40
    to_forty = _whole(_member(_load_mat(path), "mapClass", path), 0, 40, f"{path}: the mapping")
    to_13 = np.array(FORTY_TO_13)
    if (folder / MAPPING_13).exists():
        path = folder / MAPPING_13
        struct = np.asarray(_member(_load_mat(path), "classMapping13", path)).ravel()
        fields = [struct[0][name] for name in struct.dtype.names] if struct.size and struct.dtype.names else []
        numeric = [field for field in map(np.asarray, fields) if field.dtype.kind in "iuf"]
        if len(numeric) != 1 or numeric[0].size != 40:
            raise InputError(f"{path}: classMapping13 must have one field with the 40 numbers of the 13 classes.")
        to_13 = _whole(numeric[0], 0, 13, f"{path}: the mapping")
    return np.concatenate(([0], np.concatenate(([0], to_13))[to_forty])).astype(np.uint8)


def _whole(values: Any, least: int, most: int, what: str) -> np.ndarray:
    numbers = np.asarray(values).ravel()
    fits = numbers.dtype.kind in "iuf" and numbers.size and (numbers == np.round(numbers)).all()
    if not fits or numbers.min() < least or numbers.max() > most:
        raise InputError(f"{what} needs whole numbers from {least} to {most}; it is {printable(numbers, 60)}.")
    return numbers.astype(np.int64)


def _member(container: Any, key: str, path: Path) -> Any:
    if key not in container:
        raise InputError(f"{path} holds no '{key}'; is it the official file?")
    return container[key]


def _opened(path: Path) -> Any:
    return _load(path, "h5py", "h5py", "File", "MATLAB 7.3 (HDF5)")


def _load_mat(path: Path) -> dict[str, Any]:
    return _load(path, "scipy", "scipy.io", "loadmat", "readable MATLAB")


def _load(path: Path, package: str, module: str, function: str, kind: str) -> Any:
    try:
        read = getattr(importlib.import_module(module), function)
    except ImportError:
        raise InputError(
            f"NYUv2's MATLAB files need the package {package}, which is not installed. Install it with: "
            "pip install 'dfad-seg[nyuv2]'"
        ) from None
    if not path.is_file():
        raise InputError(f"no NYUv2 file at {path}.")
    try:
        return read(path)
    except Exception as error:  # scipy's reader raises many types for damaged data
        raise InputError(f"{path} is not a {kind} file: {printable(error)}.") from None
