"""List the configs that are shipped, with what each of them is."""

from __future__ import annotations

import argparse
import itertools
import textwrap
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # it takes none


def run(arguments: argparse.Namespace) -> int:
    from dfad_seg.recipes import shipped_configs

    for name, file in shipped_configs().items():
        print(f"{name}\n{textwrap.indent(textwrap.fill(_head(file), 100), '    ')}")
    return 0


def _head(config: Path) -> str:
    """What a config's first comment says before its commands, which are indented."""
    lines = config.read_text(encoding="utf-8").splitlines()
    return " ".join(line[2:] for line in itertools.takewhile(lambda line: line[:3].strip() not in ("", "#"), lines))
