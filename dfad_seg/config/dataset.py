"""The config section that says which real images there are."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from dfad_seg.common.errors import InputError
from dfad_seg.config.values import apply_override, validate
from dfad_seg.datasets import chosen_kind


class DatasetConfig(BaseModel):
    """Real images: for training with data and for evaluation, never for data-free training.

    Beside these keys it takes the options of its type.
    """

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    type: str
    """camvid, voc, nyuv2, coco, folders or street_scenes."""
    root: str
    """Folder that holds the set."""

    @model_validator(mode="after")
    def _options_fit(self) -> DatasetConfig:
        try:
            _, options = chosen_kind(self.type, self.root, self.model_extra or {})
        except InputError as error:
            raise ValueError(str(error)) from None
        given = self.model_extra if self.model_extra is not None else {}
        for key in given:  # as they were checked, so that equal sections compare equal
            given[key] = getattr(options, key)
        return self

    def options(self) -> dict[str, Any]:
        """The keys of the type that are set."""
        return {key: value for key, value in (self.model_extra or {}).items() if value is not None}


def parse_dataset(type: str, root: str, options: list[str]) -> DatasetConfig:
    """The section from a command line; `options` are `key=value`, the values in YAML.

    Raises:
        InputError: lists every wrong key and value.
    """
    values: dict[str, Any] = {}
    for option in options:
        apply_override(values, option, "--options")
    return validate(DatasetConfig, values | {"type": type, "root": root}, "data set")
