"""The config section that says which real images there are."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dfad_seg.config.values import Strict, apply_override, validate

Label = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Label, Label, Label]

CLASS_KEYS = {"classes", "palette"}
TAKES: dict[str, set[str]] = {
    "coco": {"annotation_file", "image_dir", "category_map", "background", "unlisted"} | CLASS_KEYS,
    "folders": {"img_dir", "ann_dir", "img_suffix", "seg_map_suffix", "split_file", "reduce_zero_label", "label_map"}
    | CLASS_KEYS,
}
"""The keys that a data set type takes beside type and root; none if it is not here."""
NEEDS: dict[str, set[str]] = {
    "coco": {"annotation_file", "image_dir"},
    "folders": {"img_dir", "ann_dir", "classes"},
}


class DatasetConfig(Strict):
    """Real images: for training with data and for evaluation, never for data-free training.

    In the paths of coco and folders, which are relative to `root`, `<split>` stands for the split's name.
    """

    type: str
    """camvid, voc, nyuv2, coco, folders or street_scenes."""
    root: str
    """Folder that holds the set."""

    classes: tuple[str, ...] | None = None
    """folders: the names of the labels 0, 1, ...; coco: the categories that count, in order; default: all by id."""
    palette: tuple[Colour, ...] | None = None
    """coco, folders: one [red, green, blue] per class; default: the colours of Pascal VOC."""

    annotation_file: str | None = None
    """coco: the JSON file, such as annotations/instances_<split>2017.json."""
    image_dir: str | None = None
    """coco: the folder of the images, such as <split>2017."""
    category_map: dict[str, str] | None = None
    """coco: {category: class}, to rename or merge categories."""
    background: bool | None = None
    """coco: whether pixels that no segmentation covers are a class, `background` (default), or ignored."""
    unlisted: Literal["background", "ignore"] | None = None
    """coco: objects whose category is no class are left out (background, the default) or ignored."""

    img_dir: str | None = None
    """folders: the images, sub-folders included."""
    ann_dir: str | None = None
    """folders: the index masks."""
    img_suffix: str | None = None
    """folders: the end of the image files' names, default .jpg."""
    seg_map_suffix: str | None = None
    """folders: the end of the mask files' names, default .png."""
    split_file: str | None = None
    """folders: a list of the image names without suffix; default: all images."""
    reduce_zero_label: bool | None = None
    """folders: value 0 is ignored and the others count from 1, default false."""
    label_map: dict[Label, Label] | None = None
    """folders: {old: new}, after reduce_zero_label; 255 is ignored."""

    @model_validator(mode="after")
    def _fits_type(self) -> DatasetConfig:
        given = self.options().keys()
        wrong = sorted(given - TAKES.get(self.type, set()))
        missing = sorted(NEEDS.get(self.type, set()) - given)
        problems = [f"the type {self.type} does not take {', '.join(wrong)}"] if wrong else []
        problems += [f"the type {self.type} needs {', '.join(missing)}"] if missing else []
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def options(self) -> dict[str, Any]:
        """The keys of the type that are set."""
        return self.model_dump(exclude={"type", "root"}, exclude_none=True)


def parse_dataset(type: str, root: str, options: list[str]) -> DatasetConfig:
    """The section from a command line; `options` are `key=value`, the values in YAML.

    Raises:
        InputError: lists every wrong key and value.
    """
    values: dict[str, Any] = {}
    for option in options:
        apply_override(values, option, "--options")
    return validate(DatasetConfig, values | {"type": type, "root": root}, "data set")
