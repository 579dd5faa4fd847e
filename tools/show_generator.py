"""Show what a run's generator makes of each class, and what the teacher sees in it. See --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dfad_seg.cli import run_tool


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Draw images with the layout generator of RUN, ask the teacher what it sees, and write a PNG with "
        "examples of every class and a JSON file with the share of each class's pixels that the teacher recognises."
    )
    parser.add_argument("run", metavar="RUN", help="run directory of a distillation with a layout generator")
    parser.add_argument("--out", metavar="PNG", help="default: RUN/pictures/generator.png")
    parser.add_argument("--images", type=int, default=128, metavar="N", help="default: 128")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="default: the run's image_size")
    parser.add_argument("--teacher", metavar="FILE", help="if it is no longer where the run's config says")
    arguments = parser.parse_args(argv)
    if arguments.images < 1:
        parser.error(f"--images {arguments.images}: a positive number is needed")
    if arguments.size is not None and min(arguments.size) < 1:
        parser.error("--size: positive numbers are needed")

    from dfad_seg.recipes.generator_sheet import generator_sheet  # after --help: importing torch takes seconds

    table = generator_sheet(
        arguments.run,
        arguments.out or f"{arguments.run}/pictures/generator.png",
        count=arguments.images,
        size=None if arguments.size is None else tuple(arguments.size),
        teacher=arguments.teacher,
    )
    print(table, end="")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
