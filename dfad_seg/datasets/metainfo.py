"""Class names, colours and the ignored label of a data set, checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from dfad_seg.common.errors import InputError, printable
from dfad_seg.common.labels import IGNORED
from dfad_seg.common.palette import Colour, bit_palette

MAX_NAME = 200
"""Characters in the name of a class."""


@dataclass(frozen=True)
class MetaInfo:
    """What MMSeg calls METAINFO.

    `classes[i]` is the name and `palette[i]` the RGB colour (0-255) of label `i`.  Pixels with
    `ignore_index` carry no label: losses and metrics leave them out.
    """

    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    named: bool = True
    """False where `classes` are placeholders, as for a teacher of which only the class count is known."""
    ignore_index: ClassVar[int] = IGNORED
    file_ids: tuple[int, ...] | None = None
    """The value that class `i` has in the label files (in COCO files: its category id); None: `i` itself.
    Predictions are written with these values, so that they can be compared with the files by any tool."""

    def __post_init__(self) -> None:
        _check_names(self.classes)
        if len(set(self.classes)) != len(self.classes):
            twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
            raise InputError(f"a data set's metainfo names a class twice: {printable(', '.join(twice))}.")
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


def _check_names(classes: Sequence[str]) -> None:
    # Masks are held as 8-bit images until they become tensors.
    if not 1 <= len(classes) <= 255:
        raise InputError(f"a data set has 1 to 255 classes, beside the ignored label; this one has {len(classes)}.")
    if len(name := max(classes, key=len)) > MAX_NAME:
        raise InputError(f"the class name '{printable(name, 40)}' has {len(name)} characters, more than {MAX_NAME}.")


def class_colours(palette: Sequence[Sequence[int]] | None, classes: Sequence[str]) -> tuple[Colour, ...]:
    """The colours that a config gives its classes, or those of `bit_palette`; `MetaInfo` checks them."""
    _check_names(classes)
    if palette is None:
        return bit_palette(len(classes))
    return tuple(tuple(colour) for colour in palette)  # type: ignore[misc]


def numbered_classes(count: int) -> MetaInfo:
    """Classes that no data set names."""
    classes = tuple(f"class_{i}" for i in range(count))
    return MetaInfo(classes=classes, palette=class_colours(None, classes), named=False)
