"""Label maps as files: one index PNG per image, written and read in the coding of the data set's label files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_whole
from dfad_seg.common.images import IndexReader

Palette = Sequence[tuple[int, int, int]]


class PredictionWriter:
    """Writes label maps as palette PNGs `FOLDER/NAME.png`.

    Each file is written whole. What is in the folder already stays, and a file of the same name is replaced.

    Args:
        folder: made if it is absent. Names with slashes go to sub-folders.
        file_ids: the value that each class has in the files, below 256.
        palette: RGB colour of each class.

    Raises:
        InputError: a value that does not fit into 8 bits, or a name that leaves the folder.
    """

    def __init__(self, folder: str | Path, file_ids: Sequence[int], palette: Palette) -> None:
        if max(file_ids) > 255:
            raise InputError(
                f"the label files' ids go up to {max(file_ids)}, and a PNG of predictions holds 0 to 255. "
                "Write COCO results instead: --save-coco."
            )
        self.folder = Path(folder)
        self._codes = np.zeros(256, dtype=np.uint8)
        self._codes[: len(file_ids)] = file_ids
        colours = np.zeros((256, 3), dtype=np.uint8)
        colours[list(file_ids)] = palette
        self._colours = colours.tobytes()

    def write(self, name: str, labels: np.ndarray) -> None:
        """Write the labels (H, W), 0 … C-1, of the image `name`."""
        path = self.folder / checked_name(name)
        picture = Image.fromarray(self._codes[labels], mode="P")
        picture.putpalette(self._colours)
        write_whole(path, lambda handle: picture.save(handle, format="PNG", compress_level=1))


class PredictionFolder:
    """Label maps in `FOLDER/NAME.png`, whatever wrote them; picklable, for reader processes.

    Args:
        folder: of the files, sub-folders included.
        file_ids: the value that each class has in the files.
        ignore_index: the label for value 255 where no class has it: not evaluated where the truth is not either, and
            an error elsewhere.
        palette: colour of each class, by which a file with another order of palette is understood or refused.

    Raises:
        InputError: no such folder, or no PNG in it.
    """

    def __init__(
        self, folder: str | Path, file_ids: Sequence[int], ignore_index: int = 255, palette: Palette | None = None
    ) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"there is no folder of predictions at {folder}.")
        self.names = {
            str(PurePosixPath(path.relative_to(self.folder).with_suffix("")))
            for path in self.folder.rglob("*.png")
            if not path.name.startswith(".")
        }
        if not self.names:
            raise InputError(f"{folder} holds no PNG files; a prediction is FOLDER/NAME.png, NAME being the image's.")
        self._table = np.full(256, -1, dtype=np.int16)
        self._table[255] = ignore_index
        for label, code in enumerate(file_ids):
            if code < 256:
                self._table[code] = label
        self._known = sorted(file_ids)
        colours = dict(zip(file_ids, palette, strict=True)) if palette is not None else {}
        self._reader = IndexReader(colours)

    def check(self, names: Iterable[str], ids: Iterable[int | str]) -> list[str]:
        """The names of files that belong to no image.

        Raises:
            InputError: images without a file.
        """
        names = list(names)
        require_all([name for name in names if name not in self.names], len(names), str(self.folder))
        return sorted(self.names - set(names))

    def read(self, name: str, image_id: int | str, size: tuple[int, int]) -> np.ndarray:
        """The labels (H, W) of an image, uint8.

        Raises:
            InputError: the file cannot be read, is no index image, has another size or a value that is no class.
        """
        path = self.folder / f"{checked_name(name)}"
        codes = self._reader.read(path, "prediction", size=size)
        labels = self._table[codes]
        if labels.min(initial=0) < 0:
            wrong = sorted({int(code) for code in np.unique(codes[labels < 0])})
            raise InputError(
                f"the prediction {path} holds the value {', '.join(map(str, wrong[:5]))}, which is no class. "
                f"The label files' values are {_ranges(self._known)}."
            )
        return labels.astype(np.uint8)


def require_all(missing: Sequence[str], total: int, where: str) -> None:
    """InputError if images have no prediction."""
    if missing:
        more = ", …" if len(missing) > 3 else ""
        raise InputError(
            f"{where} has no prediction for {len(missing)} of {total} images: {', '.join(missing[:3])}{more}."
        )


def checked_name(name: str) -> str:
    """`NAME.png`, which must stay inside its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise InputError(f"the image name '{name}' is no path inside a folder.")
    return f"{path}.png"


def _ranges(values: Sequence[int]) -> str:
    if len(values) > 2 and values[-1] - values[0] == len(values) - 1:
        return f"{values[0]} to {values[-1]}"
    return ", ".join(map(str, values))
