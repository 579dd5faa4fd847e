"""Watch a segmentation network being compressed without its training data. See --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dfad_seg.cli import run_tool


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Draw street scenes, train a DeepLab teacher, distil it without data, compare."
    )
    parser.add_argument("--work-dir", default="runs/demo", metavar="DIR", help="default: runs/demo")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of all stages")
    arguments = parser.parse_args(argv)

    from dfad_seg.demo import run_demo  # after --help: importing torch takes seconds

    configs = Path(__file__).resolve().parent.parent / "configs" / "street_scenes"
    run_demo(arguments.work_dir, configs, overrides=arguments.cfg_options)
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
