"""The reference page of all config keys, made from what the layers declare: `python docs/_site/reference.py`."""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from collections.abc import Mapping
from typing import Any

from dfad_seg.common.values import Chosen, Kind, schema
from dfad_seg.config import METHODS
from dfad_seg.datasets import DATASETS
from dfad_seg.distill import OPTIMIZERS, SCHEDULES
from dfad_seg.distill.game import DISCREPANCIES, PRIORS
from dfad_seg.generators import GENERATORS
from dfad_seg.segmentors import STUDENTS

CHOSEN: tuple[tuple[str, str, Mapping[str, Kind[Any]]], ...] = (
    ("`teacher`, `student`", "source", STUDENTS),
    ("`generator`", "type", GENERATORS),
    ("`dataset`", "type", DATASETS),
    ("`student_optimizer`, `generator_optimizer`", "type", OPTIMIZERS),
    ("`schedule`", "type", SCHEDULES),
)
_INTRODUCTION = """\
# Configuration

<!-- Written by python docs/_site/reference.py; do not edit. -->

An experiment is one YAML file. Unknown keys, wrong types and keys that the chosen `method` would ignore are refused,
all of them in one message. On the command line `--cfg-options key=value section.key=value` overrides keys, the values
in YAML. A run directory's `config.yaml` holds every key with the value that counted. `dfad-seg configs` lists files to
start from.

A default of – means that the key may be left out and then does nothing, or what its description says. The last column
names the methods that take the key.

## Experiment
"""


def config_reference() -> str:
    """Markdown: a table of the experiment's keys, one for each section, and one for each kind of a section."""
    described = {method: schema(config) for method, config in METHODS.items()}
    users: dict[str, list[str]] = {}
    for method, definition in described.items():
        for key in definition["properties"]:
            users.setdefault(key, []).append(method)
    rows = []
    for key, methods in users.items():
        needed = all(key in described[method].get("required", ()) for method in methods)
        value = described[methods[-1]]["properties"][key]
        rows.append(f"{_row(key, value, needed)} {'all' if len(methods) == len(METHODS) else ', '.join(methods)} |")
    parts = [_INTRODUCTION, "| key | type | default | meaning | methods |\n|---|---|---|---|---|", *rows]
    for key, kind in sections().items():
        parts += [f"\n## `{key}`\n", _table(kind)]
    for title, chooser, table in CHOSEN:
        parts += _kinds(title, chooser, table)
    for title, functions in (("`student_loss`, `adversarial_loss`", DISCREPANCIES), ("`priors`", PRIORS)):
        parts += [f"\n## {title}\n", "| name | meaning |\n|---|---|"]
        parts += [f"| `{name}` | {flat(_first(function))} |" for name, function in functions.items()]
    return "\n".join(parts) + "\n"


def sections() -> dict[str, type]:
    """The sections of an experiment that are always of one kind, by key."""
    found: dict[str, type] = {}
    for config in METHODS.values():
        for key, hint in typing.get_type_hints(config).items():
            for kind in (hint, *typing.get_args(hint)):
                if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind is not Chosen:
                    found[key] = kind
    return found


def _kinds(title: str, chooser: str, table: Mapping[str, Kind[Any]]) -> list[str]:
    """A table of the keys that most kinds take, and one for each kind of what it takes beside them."""
    keys = {name: list(schema(kind.options)["properties"]) for name, kind in table.items()}
    every = [key for taken in keys.values() for key in taken]
    usual = {key for key in every if 2 * every.count(key) > len(table)}
    whole = [name for name in table if usual <= set(keys[name])]
    parts = []
    if usual and whole:
        but = [f"`{name}`" for name in table if name not in whole]
        which = f"any `{chooser}`" + (f" but {', '.join(but)}" if but else "")
        parts += [f"\n## {title}, {which}\n", _table(table[whole[0]].options, usual)]
    for name, kind in table.items():
        own = set(keys[name]) - (usual if name in whole else set())
        if own:
            parts += [f"\n## {title}, `{chooser}: {name}`\n", _table(kind.options, own)]
    return parts


def _table(kind: type, only: set[str] | None = None) -> str:
    described = schema(kind)
    rows = [
        _row(key, value, key in described.get("required", ()))
        for key, value in described["properties"].items()
        if only is None or key in only
    ]
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])


def _row(key: str, value: Mapping[str, Any], needed: bool) -> str:
    default = "needed" if needed else _default(value)
    return f"| `{key}` | {_type(value)} | {default} | {flat(value.get('description', ''))} |"


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    if default is None:
        return "–"
    if isinstance(default, dict):
        default = {"type": default["name"], **default["options"]} if "options" in default else default
        default = {key: entry for key, entry in default.items() if entry not in (None, {})}
    return f"`{json.dumps(default)}`"


def _type(value: Mapping[str, Any]) -> str:
    """The type of a JSON schema in words."""
    if "allOf" in value:
        return _type(value["allOf"][0])
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_type(kind) for kind in value["anyOf"] if kind.get("type") != "null"))
    if "enum" in value or "const" in value:
        return ", ".join(f"`{entry}`" for entry in value.get("enum", [value.get("const")]))
    kind = value.get("type", "section")
    if kind == "array":
        inner = value.get("prefixItems")
        if inner:
            return "[" + ", ".join(_type(entry) for entry in inner) + "]"
        return f"list of {_type(value.get('items', {}))}"
    if kind == "object":
        values = value.get("additionalProperties", True)
        return "mapping" if values is True else f"mapping to {_type(values)}"
    return {"string": "text", "boolean": "true or false"}.get(kind, kind) + _bounds(value)


def _bounds(value: Mapping[str, Any]) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    found = [f"{sign} {value[name]:g}" for name, sign in signs.items() if name in value]
    return " " + ", ".join(found) if found else ""


def _first(function: Any) -> str:
    return (inspect.getdoc(function) or "").split("\n\n")[0]


def flat(text: str) -> str:
    """One line that a table cell can hold."""
    text = " ".join(text.split()).replace("|", "\\|")
    # Between backticks, every second part, a browser shows it as it is.
    parts = [part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(text.split("`"))]
    return "`".join(parts)


if __name__ == "__main__":
    print(config_reference(), end="")
