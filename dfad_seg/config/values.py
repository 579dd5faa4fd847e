"""The types of config values, overrides from a command line, and errors that name every wrong key."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from dfad_seg.common.errors import InputError, nearest

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(gt=0, lt=1)]
Size = tuple[Positive, Positive]
"""[height, width] in pixels."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], values: dict[str, Any], where: str) -> Model:
    """`values` as a checked `model`.

    Raises:
        InputError: lists every wrong key and value; it begins with `where`.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_describe(problem, model) for problem in error.errors(include_url=False)]
        raise InputError(f"{where}: " + "\n  ".join(["", *lines] if len(lines) > 1 else lines)) from None


MAX_YAML = 2**20
"""Characters; longer texts are no configs."""
MAX_VALUES = 100_000
"""Values and keys in a text, each counted as often as aliases repeat it."""


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML takes the last of equal keys, so that the others would silently be without effect."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise yaml.composer.ComposerError(
                        None, None, f"the key '{key.value}' is there twice", key.start_mark
                    )
                names.add(key.value)
        return node


def safe_yaml(text: str, what: str) -> Any:
    """The plain values in a YAML text; no tag of it runs code, and aliases cannot make it large.

    Raises:
        InputError: not YAML, a key twice in one mapping, longer than `MAX_YAML`, or more than `MAX_VALUES` values; it
            begins with `what`.
    """
    if len(text) > MAX_YAML:
        raise InputError(f"{what} has {len(text)} characters, and at most {MAX_YAML} are read. Is it the right file?")
    try:
        values = yaml.load(text, Loader=_UniqueKeys)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        # ValueError: a date or a number that is none.
        raise InputError(f"{what} is not valid YAML: {_shortened(' '.join(str(error).split()), 300)}") from None
    # Aliases share what they name, so that a few lines can stand for billions of values, or for themselves.
    todo, count = [values], 0
    while todo:
        node = todo.pop()
        count += 1
        if isinstance(node, dict):
            todo += [*node.keys(), *node.values()]
        elif isinstance(node, (list, tuple, set)):
            todo += node
        if count + len(todo) > MAX_VALUES:
            raise InputError(f"{what} has more than {MAX_VALUES} values, or aliases that repeat without end.")
    return values


def apply_override(values: dict[str, Any], override: str, option: str = "--cfg-options") -> None:
    """Set the `key=value` of a command line in `values`: dots for nested keys, the value in YAML.

    Raises:
        InputError: it has another form; the message names the command line's `option`.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"{option}: '{override}' is not of the form key=value.")
    value = safe_yaml(text, f"{option}: the value in '{_shortened(override)}'")
    *parents, last = key.split(".")
    node = values
    for parent in parents:
        child = node.get(parent)
        if child is None:
            child = node[parent] = {}
        if not isinstance(child, dict):
            raise InputError(f"{option}: '{key}': '{parent}' is a value, not a group of keys.")
        node = child
    node[last] = value


def _describe(problem: ErrorDetails, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "config"
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key.{nearest(str(problem['loc'][-1]), _known_keys(problem['loc'][:-1], model))}"
    if problem["type"] == "missing":
        return f"{key}: this key is needed."
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message if key == "config" else f"{key}: {message}."
    found = _shortened(repr(problem["input"]))
    return f"{key}: {message[:1].lower()}{message[1:]}, got {found}."


def _shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _known_keys(parents: tuple[int | str, ...], model: Any) -> list[str]:
    for part in parents:
        field = model.model_fields.get(part)
        types = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((t for t in types if isinstance(t, type) and issubclass(t, BaseModel)), None)
        if model is None:
            return []
    return list(model.model_fields)
