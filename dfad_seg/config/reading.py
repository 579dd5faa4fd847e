"""YAML to a validated config and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dfad_seg.config.schema import UNUSED, Config
from dfad_seg.errors import InputError, nearest


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read a YAML config, apply `key=value` overrides (dots for nested keys), and validate.

    Raises:
        InputError: the file cannot be read, is not a mapping, or any key or value is wrong.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the config {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a mapping of config keys, not {type(values).__name__}.")
    for override in overrides or []:
        _apply_override(values, override)
    return parse_config(values, where=str(path))


def parse_config(values: dict[str, Any], *, where: str = "config") -> Config:
    """Validate a mapping of config keys.

    Raises:
        InputError: lists every wrong key and value.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [_describe(problem) for problem in error.errors(include_url=False)]
        raise InputError(f"{where}: " + "\n  ".join(["", *lines] if len(lines) > 1 else lines)) from None


def dump_config(config: Config) -> str:
    """The resolved config as YAML that `load_config` reads back to an equal one."""
    values = config.model_dump(mode="json", exclude_none=True)
    # Keys that the method does not use would be refused when read back.
    kept = {key: value for key, value in values.items() if key not in UNUSED[config.method]}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"--cfg-options: '{override}' is not of the form key=value.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"--cfg-options: the value in '{override}' is not valid YAML.") from None
    *parents, last = key.split(".")
    node = values
    for parent in parents:
        child = node.get(parent)
        if child is None:
            child = node[parent] = {}
        if not isinstance(child, dict):
            raise InputError(f"--cfg-options: '{key}': '{parent}' is a value, not a group of keys.")
        node = child
    node[last] = value


def _describe(problem: ErrorDetails) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "config"
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key.{nearest(str(problem['loc'][-1]), _known_keys(problem['loc'][:-1]))}"
    if problem["type"] == "missing":
        return f"{key}: this key is needed."
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message if key == "config" else f"{key}: {message}."
    found = repr(problem["input"])
    found = found if len(found) <= 60 else found[:57] + "..."
    return f"{key}: {message[:1].lower()}{message[1:]}, got {found}."


def _known_keys(parents: tuple[int | str, ...]) -> list[str]:
    model: Any = Config
    for part in parents:
        field = model.model_fields.get(part)
        types = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((t for t in types if isinstance(t, type) and issubclass(t, BaseModel)), None)
        if model is None:
            return []
    return list(model.model_fields)
