"""Label maps as files: an index PNG per image in the coding of the data set's label files, or COCO results."""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from dfad_seg.common import rle
from dfad_seg.common.errors import InputError, instead_of, printable, some
from dfad_seg.common.files import open_whole, write_whole
from dfad_seg.common.images import IndexReader
from dfad_seg.common.labels import IGNORED, mapped
from dfad_seg.common.reading import check_inside, read_json

Palette = Sequence[tuple[int, int, int]]
MAX_BYTES = 2**30
"""Larger files of COCO results are not read."""


def png_writer(folder: str | Path, file_ids: Sequence[int], palette: Palette) -> Callable[[str, np.ndarray], None]:
    """`write(name, labels (H, W))` into palette PNGs `FOLDER/NAME.png`, whole; what else is in the folder stays.

    Args:
        folder: made if it is absent. Names with slashes go to sub-folders.
        file_ids: the value that each class has in the files.
        palette: RGB colour of each class.

    Raises:
        InputError: a value that does not fit into 8 bits, or a name that leaves the folder.
    """
    if max(file_ids) > 255:
        raise InputError(
            f"the label files' ids go up to {max(file_ids)}, and a PNG of predictions holds 0 to 255. "
            "Write COCO results instead: --save-coco."
        )
    codes, colours = np.zeros(256, dtype=np.uint8), np.zeros((256, 3), dtype=np.uint8)
    codes[: len(file_ids)], colours[list(file_ids)] = file_ids, palette

    def write(name: str, labels: np.ndarray) -> None:
        picture = Image.fromarray(mapped(labels, codes), mode="P")
        picture.putpalette(colours.tobytes())
        check_inside(name, "the data set")
        write_whole(Path(folder, f"{name}.png"), lambda handle: picture.save(handle, format="PNG", compress_level=1))

    return write


@contextmanager
def coco_results_writer(
    path: str | Path, category_ids: Sequence[int]
) -> Iterator[Callable[[int | str, np.ndarray], None]]:
    """`write(image_id, labels (H, W))` into `[{"image_id", "category_id", "segmentation": {"size": [H, W], "counts"},
    "score": 1.0}, …]`.

    The form of COCO's stuff evaluation: each class that occurs in an image has one entry, with pycocotools' compressed
    run-length encoding as text. Entries go to the disk as they come, and the file appears under its name at the end,
    whole, or not at all.
    """
    separator = b"\n"
    with open_whole(path) as handle:

        def write(image_id: int | str, labels: np.ndarray) -> None:
            nonlocal separator
            for label in np.unique(labels).tolist():
                encoded = coco_mask.encode(np.asfortranarray(labels == label, dtype=np.uint8))
                segmentation = {"size": list(labels.shape), "counts": encoded["counts"].decode("ascii")}
                entry = {"image_id": image_id, "category_id": category_ids[label], "segmentation": segmentation}
                handle.write(separator + json.dumps(entry | {"score": 1.0}).encode())
                separator = b",\n"

        handle.write(b"[")
        yield write
        handle.write(b"\n]\n")


class PredictionFolder:
    """Label maps in `FOLDER/NAME.png`, whatever wrote them; picklable, for reader processes.

    Value 255, where no class has it, is no prediction: it is allowed where the truth is ignored.

    Args:
        folder: of the files, sub-folders included.
        file_ids: the value that each class has in the files.
        palette: colour of each class, by which a file with another order of palette is understood or refused.

    Raises:
        InputError: no such folder, or no PNG in it.
    """

    def __init__(self, folder: str | Path, file_ids: Sequence[int], palette: Palette | None = None) -> None:
        self.path = Path(folder)
        if not self.path.is_dir():
            raise InputError(f"there is no folder of predictions at {folder}.{instead_of(folder)}")
        self.names = {
            str(PurePosixPath(path.relative_to(self.path).with_suffix("")))
            for path in self.path.rglob("*.png")
            if not path.name.startswith(".")
        }
        if not self.names:
            raise InputError(f"{folder} holds no PNG files; a prediction is FOLDER/NAME.png, NAME being the image's.")
        self._table = np.full(256, -1, dtype=np.int16)
        self._table[255] = IGNORED
        for label, code in enumerate(file_ids):
            if code < 256:
                self._table[code] = label
        self._known = sorted(file_ids)
        self._reader = IndexReader({} if palette is None else dict(zip(file_ids, palette, strict=True)))

    def check(self, names: Iterable[str], ids: Iterable[int | str]) -> list[str]:
        """The names of files that belong to no image; raises InputError for images without a file."""
        return _extra(self.names, list(names), self.path)

    def read(self, name: str, image_id: int | str, size: tuple[int, int]) -> np.ndarray:
        """The labels (H, W) of an image, uint8.

        Raises:
            InputError: the file cannot be read, is no index image, has another size or a value that is no class.
        """
        path = self.path / f"{name}.png"
        codes = self._reader.read(path, "prediction", size=size)
        labels = mapped(codes, self._table)
        if labels.min(initial=0) < 0:
            wrong = sorted({int(code) for code in np.unique(codes[labels < 0])})
            raise InputError(
                f"the prediction {path} holds the value {', '.join(map(str, wrong[:5]))}, which is no class. "
                f"The label files' values are {', '.join(map(str, self._known))}."
            )
        return labels.astype(np.uint8)


class CocoResults:
    """Label maps in a file of COCO results, whatever wrote it; picklable, for reader processes.

    Where entries of one image overlap, the later one counts. Pixels that no entry covers are `background`, if the
    data set has a class of that name; otherwise they must be ignored in the truth.

    Args:
        background: the label of uncovered pixels.

    Raises:
        InputError: the file cannot be read, an entry is malformed, or its category is unknown.
    """

    def __init__(self, path: str | Path, category_ids: Sequence[int], *, background: int = IGNORED) -> None:
        self.path = Path(path)
        self._rest = background
        label_of = {code: label for label, code in enumerate(category_ids)}
        masks: dict[int | str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        entries = read_json(self.path, "COCO results", limit=MAX_BYTES)
        if not isinstance(entries, list):
            raise InputError(f"{path} is no COCO results file: it holds {type(entries).__name__}, a list is needed.")
        for number, entry in enumerate(entries):
            keys = ("image_id", "category_id", "segmentation")
            image, category, segmentation = map(entry.get, keys) if isinstance(entry, dict) else (None, None, None)
            if not isinstance(image, (int, str)) or not isinstance(category, int) or not isinstance(segmentation, dict):
                raise InputError(
                    f"{path}, entry {number} is no COCO result: integers image_id and category_id, and segmentation"
                    " with size and counts, are needed."
                )
            if category not in label_of:
                raise InputError(
                    f"{path}, entry {number}: category_id {category} is no class of the data set. "
                    f"Its category ids are {some(category_ids, 30)}."
                )
            masks[image].append((label_of[category], segmentation))
        self._masks = dict(masks)

    def check(self, names: Iterable[str], ids: Iterable[int | str]) -> list[str]:
        """The image ids that belong to no image; raises InputError for images without an entry."""
        return _extra(self._masks, list(ids), self.path)

    def read(self, name: str, image_id: int | str, size: tuple[int, int]) -> np.ndarray:
        """The labels (H, W) of an image, uint8.

        Raises:
            InputError: a mask has another size, or its encoding is damaged.
        """
        labels, where = np.full(size, self._rest, dtype=np.uint8), f"{self.path}: a mask of image {printable(image_id)}"
        for label, segmentation in self._masks[image_id]:
            encoded = rle.checked(segmentation, size, where)
            if not isinstance(encoded["counts"], bytes):
                encoded = coco_mask.frPyObjects(encoded, *size)
            labels[coco_mask.decode(encoded).view(bool)] = label
        return labels


Stored = PredictionFolder | CocoResults


def _extra(known: Collection[int | str], wanted: Sequence[int | str], where: Path) -> list[str]:
    """Which of the stored ones nobody wants; InputError if a wanted one is missing."""
    missing = [str(each) for each in wanted if each not in known]
    if missing:
        raise InputError(f"{where} has no prediction for {len(missing)} of {len(wanted)} images: {some(missing)}.")
    return sorted(map(str, set(known) - set(wanted)))
