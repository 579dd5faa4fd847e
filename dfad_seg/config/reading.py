"""YAML to a validated config and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dfad_seg.common.errors import InputError, nearest
from dfad_seg.config.schema import UNUSED, Config
from dfad_seg.config.values import MAX_YAML, apply_override, safe_yaml, validate


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read a YAML config, apply `key=value` overrides (dots for nested keys), and validate.

    `path` may also be the name of a shipped config, see `find_config`.

    Raises:
        InputError: the file cannot be read, is not a mapping, or any key or value is wrong.
    """
    path = find_config(path)
    try:
        with open(path, "rb") as handle:
            text = handle.read(4 * MAX_YAML + 1).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read the config {path}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not valid YAML: it is no text ({error.reason}). If it is a network, give its run directory, or "
            "a config before it."
        ) from None
    values = safe_yaml(text, str(path))
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a mapping of config keys, not {type(values).__name__}.")
    for override in overrides or []:
        apply_override(values, override)
    return parse_config(values, where=str(path))


def find_config(name: str | Path) -> Path:
    """The file of a config: `name` itself, or the shipped config that is meant by it, as in `camvid/dfad_cpu`.

    The shipped ones lie in the installed package, or beside the package in a source tree. A name that is neither is
    returned as it is.

    Raises:
        InputError: it is nearly the name of a shipped config.
    """
    if Path(name).exists():
        return Path(name)
    shipped = shipped_configs()
    plain = str(name).removeprefix("configs/").removesuffix(".yaml")
    if plain in shipped:
        return shipped[plain]
    suggestion = nearest(plain, shipped)
    if suggestion:
        raise InputError(f"there is no config file {name}, and no shipped config of this name.{suggestion}")
    return Path(name)


def shipped_configs() -> dict[str, Path]:
    """The configs that come with the package, by name: `camvid/dfad_cpu` and so on."""
    package = Path(__file__).resolve().parents[1]
    folder = next((place for place in (package / "configs", package.parent / "configs") if place.is_dir()), None)
    if folder is None:
        return {}
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.yaml"))}


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
