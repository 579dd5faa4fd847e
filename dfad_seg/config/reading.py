"""YAML to a validated config and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dfad_seg.config.schema import UNUSED, Config
from dfad_seg.config.values import MAX_YAML, apply_override, safe_yaml, validate
from dfad_seg.errors import InputError


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read a YAML config, apply `key=value` overrides (dots for nested keys), and validate.

    Raises:
        InputError: the file cannot be read, is not a mapping, or any key or value is wrong.
    """
    path = Path(path)
    try:
        with open(path, "rb") as handle:
            text = handle.read(4 * MAX_YAML + 1).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read the config {path}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    values = safe_yaml(text, str(path))
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a mapping of config keys, not {type(values).__name__}.")
    for override in overrides or []:
        apply_override(values, override)
    return parse_config(values, where=str(path))


def parse_config(values: dict[str, Any], *, where: str = "config") -> Config:
    """Validate a mapping of config keys.

    Raises:
        InputError: lists every wrong key and value.
    """
    return validate(Config, values, where)


def dump_config(config: Config) -> str:
    """The resolved config as YAML that `load_config` reads back to an equal one."""
    values = config.model_dump(mode="json", exclude_none=True)
    # Keys that the method does not use would be refused when read back.
    kept = {key: value for key, value in values.items() if key not in UNUSED[config.method]}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
