"""YAML to a validated config and back."""

import itertools
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dfad_seg.common.errors import InputError, choose, nearest, shortened
from dfad_seg.common.reading import parse_yaml, read_yaml
from dfad_seg.common.values import plain, validated
from dfad_seg.config.experiment import METHODS, Config


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read a YAML config, apply `key=value` overrides (dots for nested keys), and validate.

    `path` may also be the name of a shipped config, see `find_config`.

    Raises:
        InputError: the file cannot be read, is not a mapping, or any key or value is wrong.
    """
    path = find_config(path)
    values = read_yaml(path, "the config")
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
    short = str(name).removeprefix("configs/").removesuffix(".yaml")
    if short in shipped:
        return shipped[short]
    suggestion = nearest(short, shipped)
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


def list_configs() -> None:
    """Print the shipped configs, with what each one's first comment says before its commands, which are indented."""
    for name, file in shipped_configs().items():
        lines = file.read_text(encoding="utf-8").splitlines()
        head = itertools.takewhile(lambda line: line[:3].strip() not in ("", "#"), lines)
        about = textwrap.fill(" ".join(line[2:] for line in head), 100)
        print(f"{name}\n{textwrap.indent(about, '    ')}")


def parse_config(values: Mapping[str, Any], *, where: str = "config") -> Config:
    """Validate a mapping of config keys, for the method that it names.

    Raises:
        InputError: lists every wrong key and value. A key that the method would ignore is wrong, too: a setting without
            effect is a mistake.
    """
    if "method" not in values:
        raise InputError(f"{where}: method: this key is needed. Known: {', '.join(METHODS)}.")
    kind = choose(METHODS, values["method"], "method")
    every = {name for each in METHODS.values() for name in each.__dataclass_fields__}
    ignored = sorted(values.keys() & every - kind.__dataclass_fields__.keys())
    try:
        config = validated(kind, {key: value for key, value in values.items() if key not in ignored}, where)
    except InputError as error:
        problems = str(error)
    else:
        if not ignored:
            return config
        problems = f"{where}: "
    if ignored:
        problems += f"\n  method {values['method']} does not use {', '.join(ignored)}; remove."
    raise InputError(problems)


def dump_config(config: Config) -> str:
    """The resolved config as YAML that `load_config` reads back to an equal one."""
    values = plain(config)
    return yaml.safe_dump({"method": values.pop("method"), **values}, sort_keys=False, allow_unicode=True)


def apply_override(values: dict[str, Any], override: str, option: str = "--cfg-options") -> None:
    """Set the `key=value` of a command line in `values`: dots for nested keys, the value in YAML.

    Raises:
        InputError: it has another form; the message names the command line's `option`.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"{option}: '{shortened(override)}' is not of the form key=value.")
    value = parse_yaml(text, f"{option}: the value in '{shortened(override)}'")
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
