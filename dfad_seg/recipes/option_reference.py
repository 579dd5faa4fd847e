"""The reference of the options of generators and sources, and of the discrepancies, made from their docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection
from typing import Any

from dfad_seg.config.reference import flat
from dfad_seg.generators import GENERATORS
from dfad_seg.objectives.discrepancy import DISCREPANCIES
from dfad_seg.segmentors import Segmentor
from dfad_seg.segmentors.sources import COMMON_OPTIONS, SOURCES

GIVEN = {"self", "num_classes", "image_size", "options", "network"}
"""What the experiment says, and not the section."""


def option_reference() -> str:
    """Markdown: a table of options for each type of generator and each source, and one of the discrepancies."""
    parts = []
    for name, build in GENERATORS.items():
        if name != "noise":  # has none: it is method random_noise
            parts += [f"## `generator`, `type: {name}`\n", _table(build)]
    for name, source in SOURCES.items():
        parts += [f"## `teacher`, `student`, `source: {name}`\n", _table(source)]
    common = [name for name in COMMON_OPTIONS if name != "checkpoint"]
    parts += [
        "## `teacher`, `student`, any source but `saved`\n",
        _table(Segmentor, common),
    ]
    lines = ["## `student_loss`, `adversarial_loss`\n", "| name | discrepancy |", "|---|---|"]
    for name, function in DISCREPANCIES.items():
        lines.append(f"| `{name}` | {flat((inspect.getdoc(function) or '').split(chr(10) * 2)[0])} |")
    return "\n".join([*parts, *lines]) + "\n"


def _table(build: Callable[..., Any], names: Collection[str] | None = None) -> str:
    meanings = documented(inspect.getdoc(build) or "")
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for name, parameter in inspect.signature(build).parameters.items():
        if name in GIVEN or (names is not None and name not in names):
            continue
        default = "needed" if parameter.default is parameter.empty else f"`{parameter.default!r}`"
        default = {"`None`": "–", "`True`": "`true`", "`False`": "`false`"}.get(default, default.replace("'", '"'))
        lines.append(f"| `{name}` | {default} | {flat(meanings.get(name, ''))} |")
    return "\n".join(lines) + "\n"


def documented(text: str) -> dict[str, str]:
    """What the `Args:` of a docstring say of each argument; a line may name several."""
    block = re.search(r"^Args:\n((?:    .*\n?|\n)*)", text, flags=re.M)
    meanings: dict[str, str] = {}
    for entry in re.findall(r"^    (?! )(.*(?:\n        .*)*)", block.group(1) if block else "", flags=re.M):
        names, _, meaning = entry.partition(": ")
        meanings |= dict.fromkeys(re.split(r",\s*", names), meaning)
    return meanings
