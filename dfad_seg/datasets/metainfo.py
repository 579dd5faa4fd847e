"""Class names, colours and the ignored label of a data set, each written down in one place."""

from __future__ import annotations

from dataclasses import dataclass

from dfad_seg.errors import InputError


@dataclass(frozen=True)
class MetaInfo:
    """What MMSeg calls METAINFO.

    `classes[i]` is the name and `palette[i]` the RGB colour (0-255) of label `i`.  Pixels with
    `ignore_index` carry no label: losses and metrics leave them out.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int = 255
    named: bool = True
    """False where `classes` are placeholders, as for a teacher of which only the class count is known."""

    def __post_init__(self) -> None:
        if not self.classes:
            raise InputError("a data set's metainfo needs at least one class; it has none.")
        if len(set(self.classes)) != len(self.classes):
            twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
            raise InputError(f"a data set's metainfo names a class twice: {', '.join(twice)}.")
        if len(self.palette) != len(self.classes):
            raise InputError(
                f"a data set's metainfo has {len(self.classes)} classes but {len(self.palette)} palette "
                "colours; give one RGB colour per class."
            )
        for name, colour in zip(self.classes, self.palette, strict=True):
            if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
                raise InputError(f"the palette colour of class '{name}' is {colour}; three values 0-255 needed.")
        # Masks are held as 8-bit images until they become tensors.
        if not len(self.classes) <= self.ignore_index <= 255:
            raise InputError(
                f"ignore_index is {self.ignore_index}; it must lie between the number of classes "
                f"({len(self.classes)}) and 255."
            )

    @property
    def num_classes(self) -> int:
        """How many labels count, the ignored one not included."""
        return len(self.classes)


CAMVID = MetaInfo(
    classes=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)
"""The 11 classes of CamVid in the order of the SegNet tutorial's label files."""
