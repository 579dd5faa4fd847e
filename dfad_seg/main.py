"""The command `dfad-seg`: the tools under one name, wherever the package is installed."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from dfad_seg.cli import EXIT_BAD_INPUT, run_tool
from dfad_seg.common.errors import nearest

TOOLS = {
    "train": "train_seg",
    "eval": "eval_miou",
    "export": "export_student",
    "inspect": "inspect_teacher",
    "prepare": "prepare_dataset",
    "ablate": "ablate",
    "report": "report",
    "digits": "digits_check",
    "demo": "demo",
}
"""Command → the file in tools/ that is run."""


def main(argv: Sequence[str] | None = None) -> int:
    """`dfad-seg COMMAND …`; a command's exit code is its tool's. `configs` is none of the tools."""
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    tools = {name: file for name in TOOLS if (file := tool_file(name)) is not None}
    if command in ("-h", "--help"):
        print(_usage(tools))
        return 0
    if command == "--version":
        from dfad_seg.common.environment import environment  # imports torch

        print(environment())
        return 0
    if command == "configs":
        return run_tool(_list_configs, rest)
    if command not in tools:
        known = [*tools, "configs"]
        print(
            f"error: unknown command '{command}'.{nearest(command, known)} Known: {', '.join(known)}.", file=sys.stderr
        )
        return EXIT_BAD_INPUT
    spec = importlib.util.spec_from_file_location(tools[command].stem, tools[command])
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    # Processes that a tool starts run the command line anew: by the tool's own path. A help page starts none.
    asks_for_help = bool({"-h", "--help"} & set(rest))
    sys.argv = [f"dfad-seg {command}" if asks_for_help else str(tools[command]), *rest]
    return run_tool(tool.main, rest)


def tool_file(command: str) -> Path | None:
    """The file of a command's tool: in the installed package, or beside the package in a source tree."""
    package = Path(__file__).resolve().parent
    places = (package / "tools", package.parent / "tools")
    return next((file for place in places if (file := place / f"{TOOLS[command]}.py").is_file()), None)


def _list_configs(_: Sequence[str] | None = None) -> int:
    from dfad_seg.config import shipped_configs

    for name, file in shipped_configs().items():
        print(f"{name}\n{textwrap.indent(textwrap.fill(_head(file), 100), '    ')}")
    return 0


def _head(config: Path) -> str:
    """What a config's first comment says before its commands, which are indented."""
    lines = config.read_text(encoding="utf-8").splitlines()
    return " ".join(line[2:] for line in itertools.takewhile(lambda line: line[:3].strip() not in ("", "#"), lines))


def _usage(tools: dict[str, Path]) -> str:
    lines = ["usage: dfad-seg COMMAND ...", "", "Compress semantic-segmentation networks without their data.", ""]
    for command, file in tools.items():
        # The first sentence of the tool's docstring.
        about = file.read_text(encoding="utf-8").partition('"""')[2].split("\n")[0].split('"""')[0].split(". See")[0]
        lines.append(f"  {command:<9} {about.rstrip('.')}")
    lines.append("  configs   List the configs that are shipped")
    lines += ["", "  COMMAND --help shows a command's options; --version shows the environment.", ""]
    lines.append("A config is a file, or the name of one that is shipped: dfad-seg train camvid/recommended_cpu_30min")
    return "\n".join(lines)
