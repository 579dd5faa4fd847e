"""The reference page of all config keys, made from the schema itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dfad_seg.config.schema import UNUSED, Config

_INTRODUCTION = """\
# Configuration

<!-- Written by tools/config_reference.py from the schema in dfad_seg/config; do not edit. -->

An experiment is one flat YAML file. Unknown keys, wrong types and keys that the chosen `method` would ignore are
refused, all of them in one message. On the command line `--cfg-options key=value section.key=value` overrides keys, the
values in YAML. A run directory's `config.yaml` holds every key with the value that counted. Files to start from are in
`configs/`.

A default of – means that the key may be left out and then does nothing, or what its description says. The last column
names the methods that take the key. The options of generators and of sources stand at the end.
"""


def config_reference() -> str:
    """Markdown: a table of the experiment's keys, and one for each section."""
    schema = Config.model_json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    users: dict[str, list[str]] = {}
    for key, value in schema["properties"].items():
        for name in definitions:
            if f'"#/$defs/{name}"' in json.dumps(value):
                users.setdefault(name, []).append(key)
    parts = [_INTRODUCTION, "## Experiment\n", _table(schema, methods=True)]
    for name, keys in users.items():
        definition = definitions[name]
        parts.append(f"## {_section(keys)}\n")
        if definition.get("description"):
            parts.append(flat(definition["description"]) + "\n")
        if definition.get("additionalProperties") is True:
            parts.append("Further keys are the options of the chosen type, which checks them itself.\n")
        parts.append(_table(definition, methods=False))
    return "\n".join(parts)


def _section(keys: list[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys)


def _table(schema: Mapping[str, Any], *, methods: bool) -> str:
    last = " methods |" if methods else ""
    lines = [f"| key | type | default | meaning |{last}", "|---|---|---|---|" + ("---|" if methods else "")]
    for key, value in schema["properties"].items():
        default = "needed" if key in schema.get("required", ()) else _default(value)
        line = f"| `{key}` | {_type(value)} | {default} | {flat(value.get('description', ''))} |"
        lines.append(line + (f" {_methods(key)} |" if methods else ""))
    return "\n".join(lines) + "\n"


def _methods(key: str) -> str:
    users = [method for method, unused in UNUSED.items() if key not in unused]
    return "all" if len(users) == len(UNUSED) else ", ".join(users)


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    if default is None:
        return "–"
    if isinstance(default, dict):
        default = {key: entry for key, entry in default.items() if entry is not None}
    return f"`{json.dumps(default)}`"


def _type(value: Mapping[str, Any]) -> str:
    """The type of a JSON schema in words."""
    if "$ref" in value:
        return "section"
    if "allOf" in value:
        return _type(value["allOf"][0])
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_type(kind) for kind in value["anyOf"] if kind.get("type") != "null"))
    if "enum" in value or "const" in value:
        return ", ".join(f"`{entry}`" for entry in value.get("enum", [value.get("const")]))
    kind = value.get("type", "any")
    if kind == "array":
        inner = value.get("prefixItems")
        if inner:
            return "[" + ", ".join(_type(entry) for entry in inner) + "]"
        return f"list of {_type(value.get('items', {}))}"
    if kind == "object":
        return f"mapping to {_type(value.get('additionalProperties', {}))}"
    return {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}.get(
        kind, kind
    ) + _bounds(value)


def _bounds(value: Mapping[str, Any]) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    found = [f"{sign} {value[name]:g}" for name, sign in signs.items() if name in value]
    return " " + ", ".join(found) if found else ""


def flat(text: str) -> str:
    """One line that a table cell can hold."""
    text = " ".join(text.split()).replace("|", "\\|")
    # Between backticks, every second part, a browser shows it as it is.
    parts = [part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(text.split("`"))]
    return "`".join(parts)
