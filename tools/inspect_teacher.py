"""Say what a checkpoint looks like, and print a config to start from. See --help and docs/bring_your_own.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dfad_seg.cli import run_tool


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Say what a checkpoint looks like: source, classes, parameters, normalisation, answers on noise; "
        "and print a config to start from. Nothing in the file is run without --trust."
    )
    parser.add_argument("file", metavar="FILE", help=".pt, .pth, .safetensors, TorchScript or torch.export file")
    parser.add_argument("--trust", action="store_true", help="load TorchScript and torch.export files, which are code")
    parser.add_argument("--num-classes", type=int, metavar="N", help="where the file does not show it")
    parser.add_argument("--out", metavar="CONFIG", help="write the config to this file")
    arguments = parser.parse_args(argv)

    from dfad_seg.recipes import inspect_from_arguments  # after --help: importing torch takes seconds

    return inspect_from_arguments(**vars(arguments))


if __name__ == "__main__":
    sys.exit(run_tool(main))
