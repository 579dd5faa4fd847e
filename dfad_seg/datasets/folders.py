"""Split files, folders with sub-folders, paths in which `<split>` stands for the split's name; and any data set in the
folder layout of MMSegmentation, described by options alone."""

import glob
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from dfad_seg.common.errors import InputError, instead_of, printable
from dfad_seg.common.labels import IGNORED, mapped
from dfad_seg.common.reading import check_inside, read_text
from dfad_seg.common.values import Byte, FileName, options
from dfad_seg.datasets.base import MetaInfo, OwnImages, Pair, SegmentationDataset, Transform, pair_up, require_folder

_JPEG = (".jpg", ".jpeg")
IMAGE_SUFFIXES = (".png", *_JPEG)
_ALL_IMAGES = (*IMAGE_SUFFIXES, *".avif .bmp .dcm .gif .heic .jp2 .npy .pgm .ppm .tif .tiff .webp".split())
MAX_LIST = 2**26
"""Bytes of a split file."""
MAX_FILES = 4_000_000
"""In one folder and what is below it, links followed."""
SPLIT = "<split>"
ALL = "all"
"""The one split of a data set none of whose paths contains `<split>`."""


def list_files(
    folder: Path,
    suffixes: tuple[str, ...],
    what: str,
    *,
    deep: bool = True,
    notes: list[str] | None = None,
    beside: Collection[Path] = (),
    option: str = "",
) -> dict[str, Path]:
    """The files in `folder` whose names end with one of `suffixes`, in upper or lower case; .jpg and .jpeg are one.

    Hidden files and folders do not count. Links are followed, but for those that lead to a folder they lie in.

    Args:
        deep: the files in sub-folders count as well.
        notes: is told what other images are left out, but for those `beside`.
        option: that the suffix is from, for the message.

    Returns:
        By name, sorted: the path below the folder, with `/`, without the suffix.
    """
    if not folder.is_dir():
        raise InputError(f"no {what} folder at {folder}.{instead_of(folder)}")
    ends = [suffix.lower() for suffix in suffixes]
    ends += [end[: end.rindex(".")] + alike for end in ends if end.endswith((".jpg", ".jpeg")) for alike in _JPEG]
    found: dict[str, Path] = {}
    left_out = []
    for path in _walk(folder, what, deep):
        low = path.name.lower()
        end = next((end for end in ends if low.endswith(end)), None)
        if end is not None:
            name = path.relative_to(folder).as_posix()
            name = name[: len(name) - len(end)]
            if name in found:
                raise InputError(f"two {what}s named '{name}' in {folder}: {found[name].name}, {path.name}.")
            found[name] = path
        elif low.endswith(_ALL_IMAGES) and path not in beside:
            left_out.append(path)
    wanted = f"end with {' or '.join(map(repr, suffixes))}"
    if not found:
        usual = Counter(path.suffix for path in left_out).most_common(1)
        do = f"; {usual[0][1]} end with '{usual[0][0]}'" if usual else ""
        do += f": set {option} to that" if usual and option else ""
        raise InputError(f"the {what} folder {folder} holds no files{f' that {wanted}' if any(ends) else ''}{do}.")
    if left_out and notes is not None:
        first = printable(min(left_out))
        notes.append(
            f"{len(left_out)} {what} files are left out, as their names do not {wanted}; the first is {first}."
        )
    return dict(sorted(found.items()))


def list_images(folder: Path, what: str, notes: list[str] | None = None) -> dict[str, Path]:
    """File stem -> path of the PNG and JPEG files in `folder`, without sub-folders; otherwise as `list_files`."""
    return list_files(folder, IMAGE_SUFFIXES, what, deep=False, notes=notes)


def _walk(folder: Path, what: str, deep: bool) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"cannot list the {what} folder {error.filename}: {error.strerror or error}.") from None

    count = 0
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        above = [path for path in (Path(place), *Path(place).parents) if path.is_relative_to(folder)]
        circle = len({os.path.realpath(path) for path in above}) < len(above)
        folders[:] = [name for name in folders if deep and not circle and not name.startswith(".")]
        count += len(files) + len(folders)
        if count > MAX_FILES:
            raise InputError(f"the {what} folder {folder} holds more than {MAX_FILES} files; do links multiply them?")
        yield from (Path(place, name) for name in sorted(files) if not circle and not name.startswith("."))


def read_listing(path: Path, *, only_stems: bool = False) -> list[str]:
    """The names in a split file, one per line, each once; empty lines do not count.

    `only_stems`: of each line, the file stem of its first word, as in lists that hold the paths of image and mask.
    """
    lines = read_text(path, "split file", limit=MAX_LIST).splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if only_stems:
        names = [PurePosixPath(name.split()[0]).stem for name in names]
    if not names:
        raise InputError(f"the split file {path} is empty; it needs the name of an image per line.")
    for name in names:
        check_inside(name, f"the split file {path}")
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise InputError(f"the split file {path} names '{printable(name)}' twice.")
    return names


def require_listed(names: Collection[str], present: Collection[str], listing: Path, folder: Path) -> None:
    """`InputError` naming the first of `names` (from the file `listing`) that is not among those in `folder`."""
    absent = [name for name in names if name not in present]
    if absent:
        raise InputError(f"{listing} names '{printable(absent[0])}' ({len(absent)} such), which is not in {folder}.")


def found_splits(root: Path, templates: list[str]) -> tuple[str, ...]:
    """The splits for which a file or folder exists: what `<split>` can stand for in the first of `templates` (paths,
    relative to `root`) that contains it; `("all",)` if none does."""
    template = next((path for path in templates if SPLIT in path), None)
    if template is None:
        return (ALL,)
    parts = str(root / template).split(SPLIT)
    first, *others = [re.escape(part) for part in parts]
    pattern = f"{first}(?P<split>[^/]+){'(?P=split)'.join(others)}"
    hits = glob.glob("*".join(glob.escape(part) for part in parts))
    splits = sorted({match["split"] for hit in hits if (match := re.fullmatch(pattern, hit))})
    if not splits:
        raise InputError(f"nothing at {root} fits {template}, whatever stands for {SPLIT}.")
    return tuple(splits)


Rgb = tuple[Byte, Byte, Byte]


@options
class FoldersOptions(OwnImages):
    """Paths are relative to `root`, and `<split>` in them stands for the split's name."""

    img_dir: FileName
    """The images, sub-folders included."""
    ann_dir: FileName | None = None
    """The index masks. Without it no image has labels: a student is compared with its teacher, not with the truth."""
    classes: tuple[str, ...] = ()
    """The names of the labels 0, 1, ...; needed with `ann_dir`."""
    palette: tuple[Rgb, ...] | None = None
    """One [red, green, blue] per class; default: the colours of Pascal VOC."""
    img_suffix: FileName = ".jpg"
    """The end of the image files' names, in upper or lower case; .jpg and .jpeg are one."""
    seg_map_suffix: FileName = ".png"
    """The end of the mask files' names."""
    split_file: FileName | None = None
    """A list of the image names without suffix, one per line, sub-folders included; default: all images."""
    reduce_zero_label: bool = False
    """Value 0 is ignored and the others count from 1."""
    label_map: dict[Byte, Byte] | None = None
    """{old: new}, after reduce_zero_label; 255 is ignored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ann_dir is not None and not self.classes:
            raise ValueError("classes: this key is needed with ann_dir")


class Folders(SegmentationDataset):
    """Images `img_dir/**/NAME<img_suffix>` with index masks `ann_dir/**/NAME<seg_map_suffix>`, both below `root`.

    The semantics of the options are those of MMSegmentation 1.x (`BaseSegDataset`, `LoadAnnotations`). Values that end
    neither below `len(classes)` nor at 255 are an error, where MMSegmentation is silent.

    Where none of the paths has `<split>`, the set has one split, named `all`.
    """

    options: FoldersOptions

    def __init__(self, options: FoldersOptions, split: str, *, transform: Transform | None = None) -> None:
        self._table = label_table(options.reduce_zero_label, options.label_map or {})
        self.metainfo = self.describe(options)
        self.own_palette = options.palette is not None
        self.splits = self.present_splits(options)
        self.labelled = self.mask_files = options.ann_dir is not None
        super().__init__(options, split, transform=transform)

    @classmethod
    def describe(cls, options: FoldersOptions) -> MetaInfo:
        names = options.classes or ("not named",)  # without labels nothing asks
        plain = MetaInfo(names, options.palette)  # type: ignore[arg-type]
        table = label_table(options.reduce_zero_label, options.label_map or {})
        values = [np.flatnonzero(table == label) for label in range(plain.num_classes)]
        unreached = [name for name, found in zip(names, values, strict=True) if not found.size]
        if unreached:
            raise InputError(
                f"no value of a mask file becomes class '{unreached[0]}': label_map moves its value to another class. "
                "Leave the class out, or correct label_map."
            )
        return replace(plain, file_ids=tuple(int(found[0]) for found in values))

    @classmethod
    def present_splits(cls, options: FoldersOptions) -> tuple[str, ...]:
        paths = [path for path in (options.split_file, options.ann_dir, options.img_dir) if path is not None]
        return found_splits(require_folder(options.root), paths)

    def find_pairs(self) -> list[Pair]:
        chosen = self.options
        image_folder = self.root / chosen.img_dir.replace(SPLIT, self.split)
        mask_folder, masks = image_folder, None
        if chosen.ann_dir is not None:
            mask_folder = self.root / chosen.ann_dir.replace(SPLIT, self.split)
            masks = list_files(mask_folder, (chosen.seg_map_suffix,), "mask", option="seg_map_suffix")
        images = list_files(
            image_folder,
            (chosen.img_suffix,),
            "image",
            notes=self.notes,
            beside=set((masks or {}).values()),  # masks may lie among the images
            option="img_suffix",
        )
        if chosen.split_file is not None:
            listing = self.root / chosen.split_file.replace(SPLIT, self.split)
            names = read_listing(listing)
            require_listed(names, images, listing, image_folder)
            images = {name: images[name] for name in names}
        return pair_up(images, images if masks is None else masks, mask_folder)

    def load_labels(self, index: int) -> np.ndarray:
        if self.labelled:
            return super().load_labels(index)
        return np.full(self.load_photo(index).upright().shape[:2], IGNORED, np.uint8)

    def read_labels(self, path: Path) -> np.ndarray:
        return mapped(super().read_labels(path), self._table)


def label_table(reduce_zero_label: bool, label_map: Mapping[int, int]) -> np.ndarray:
    """The label of each of the 256 values of a mask file, uint8 (256,), by MMSegmentation 1.x's rules."""
    table = np.arange(256)
    if reduce_zero_label:
        table = np.where((table == 0) | (table == 255), IGNORED, table - 1)
    return np.array([label_map.get(int(value), int(value)) for value in table], np.uint8)
