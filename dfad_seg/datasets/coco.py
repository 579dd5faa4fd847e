"""Data sets in COCO's annotation format, with segmentations rendered to label masks."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as rle

from dfad_seg.common.errors import InputError, nearest, printable
from dfad_seg.common.labels import IGNORED
from dfad_seg.common.values import FileName, options
from dfad_seg.datasets.base import MetaInfo, OwnImages, Pair, SegmentationDataset, Transform, require_folder
from dfad_seg.datasets.coco_file import Annotation, CocoFile, CocoImage, read_coco
from dfad_seg.datasets.folders import Rgb
from dfad_seg.datasets.listing import SPLIT, found_splits, list_files, require_listed

BACKGROUND = "background"


@options
class CocoOptions(OwnImages):
    """Paths are relative to `root`, and `<split>` in them stands for the split's name."""

    annotation_file: FileName
    """The JSON file, such as annotations/instances_<split>2017.json."""
    image_dir: FileName
    """The folder of the images, such as <split>2017."""
    classes: tuple[str, ...] | None = None
    """The categories that count, in order; default: all by id, but for one that only groups the others."""
    palette: tuple[Rgb, ...] | None = None
    """One [red, green, blue] per class; default: the colours of Pascal VOC."""
    background: bool = True
    """Whether pixels that no segmentation of a class covers are a class, `background`, or ignored."""


class Coco(SegmentationDataset):
    """Images of `image_dir` with the masks that `annotation_file` (COCO JSON) describes.

    Instance segmentations (polygons, run-length encodings, crowd) and COCO-stuff's "one segmentation per category
    and image" are read alike.  A pixel gets the class of the smallest object that covers it: objects are painted from
    the largest to the smallest by their area in pixels, equal ones in the file's order.  Crowd regions are ignored
    (255) where no single object lies on them.

    Classes: without `classes` all categories by id, those of one name together; with it the categories of these names,
    in this order; objects of others are left out, and what lies under them shows.  With `background` there is a class
    of that name, the first unless `classes` places it, for pixels that nothing covers; without it they are ignored.  A
    category `_background_` is it.

    Where neither path has `<split>`, the set has one split, named `all`.
    """

    mask_files = False
    options: CocoOptions

    def __init__(self, options: CocoOptions, split: str, *, transform: Transform | None = None) -> None:
        self.splits = self.present_splits(options)
        super().__init__(options, split, transform=transform)

    @classmethod
    def describe(cls, options: CocoOptions) -> MetaInfo:
        folder = require_folder(options.root)
        files = [folder / options.annotation_file.replace(SPLIT, split) for split in cls.present_splits(options)]
        # The splits have the same categories, which is checked when they are used, and the smallest file is read fast.
        smallest = min((path for path in files if path.is_file()), key=lambda p: p.stat().st_size, default=files[0])
        return map_categories(read_coco(smallest), options)[0]

    @classmethod
    def present_splits(cls, options: CocoOptions) -> tuple[str, ...]:
        return found_splits(require_folder(options.root), [options.annotation_file, options.image_dir])

    def find_pairs(self) -> list[Pair]:
        self._file = read_coco(self.root / self.options.annotation_file.replace(SPLIT, self.split))
        self.metainfo, self._labels = map_categories(self._file, self.options)
        self.notes += self._file.notes(groups=self.options.classes is None)
        folder = self.root / self.options.image_dir.replace(SPLIT, self.split)
        present = list_files(folder, ("",), "image")
        files = [
            name if name in present else name.replace("\\", "/")
            for name in (image.file_name for image in self._file.images)
        ]
        require_listed(files, present, self._file.path, folder)
        names = [str(PurePosixPath(name).with_suffix("")) for name in files]
        if len(set(names)) != len(names):
            raise InputError(f"{self._file.path} has two images with the same file_name, suffix aside.")
        return [Pair(name, present[file], self._file.path) for name, file in zip(names, files, strict=True)]

    @property
    def ids(self) -> list[int]:
        """The integer ids of the images in the annotation file."""
        return [image.id for image in self._file.images]

    def load_labels(self, index: int) -> np.ndarray:
        uncovered = self.metainfo.classes.index(BACKGROUND) if BACKGROUND in self.metainfo.classes else IGNORED
        return render(self._file.images[index], self._labels, uncovered=uncovered)

    def mask_name(self, index: int) -> str:
        return f"the annotation of image {self._file.images[index].id} in {self._file.path}"


def render(image: CocoImage, labels: Mapping[int, int], *, uncovered: int) -> np.ndarray:
    """The label mask, uint8 (H, W), of an image's annotations, by the overlap rule of `Coco`.

    `labels`: category id -> label.  `uncovered`: label of pixels that nothing covers.
    """
    painted = [annotation for annotation in image.annotations if annotation.category in labels]
    encoded = [encode(annotation, image.size) for annotation in painted]
    areas = [int(rle.area(region)) for region in encoded]  # as a batch, pycocotools fails from 256 on
    order = sorted(range(len(painted)), key=lambda i: (not painted[i].crowd, -areas[i]))
    mask = np.full(image.size, uncovered, np.uint8)
    for i in order:
        mask[rle.decode(encoded[i]).view(bool)] = IGNORED if painted[i].crowd else labels[painted[i].category]
    return mask


def encode(annotation: Annotation, size: tuple[int, int]) -> dict[str, Any]:
    """An annotation's region as one compressed run-length encoding of pycocotools; `size` is (height, width)."""
    encoded = []
    for part in annotation.parts:
        if isinstance(part, dict):
            encoded.append(part if isinstance(part["counts"], bytes) else rle.frPyObjects(part, *size))
        else:
            encoded += rle.frPyObjects([part], *size)
    return encoded[0] if len(encoded) == 1 else rle.merge(encoded)


def map_categories(file: CocoFile, options: CocoOptions) -> tuple[MetaInfo, dict[int, int]]:
    """The classes of a file and the label of each category id that has one, by the rules of `Coco`.

    `MetaInfo.file_ids` are category ids: of several the lowest, and for a background that is no category 0, or the
    highest id + 1 if 0 is taken.  Raises `InputError` for classes that no category has.
    """
    class_of = dict(file.categories)
    if options.classes is None:
        class_of = {number: name for number, name in class_of.items() if number not in file.groups}
        if BACKGROUND not in class_of.values():
            spelled = ("_background_", "__background__")
            class_of = {number: BACKGROUND if name in spelled else name for number, name in class_of.items()}
    known = dict.fromkeys(class_of.values())
    chosen = list(known if options.classes is None else options.classes)
    for name in chosen:
        if name != BACKGROUND and name not in known:
            near = nearest(name, class_of.values()) or f" It has {printable(', '.join(known))}."
            raise InputError(f"classes names '{printable(name)}', which is no category of {file.path}.{near}")
    if options.background and BACKGROUND not in chosen:
        chosen.insert(0, BACKGROUND)
    if not options.background and BACKGROUND in chosen:
        raise InputError(f"{file.path}: '{BACKGROUND}' is among the classes, but background is false.")
    place = {name: i for i, name in enumerate(chosen)}
    labels = {number: place[name] for number, name in class_of.items() if name in place}
    free = 0 if 0 not in file.categories else max(file.categories) + 1
    lowest = {label: number for number, label in sorted(labels.items(), reverse=True)}
    ids = tuple(lowest.get(i, free) for i in range(len(chosen)))
    return MetaInfo(tuple(chosen), options.palette, file_ids=ids), labels  # type: ignore[arg-type]
