"""Distil a small classifier of digits without data: the papers' classification form in seconds. See --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dfad_seg.cli import run_tool


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Train a CNN on scikit-learn's bundled digits for each seed, distil it without data as each CONFIG "
        "says, and print the accuracies."
    )
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="YAML files, see configs/digits/")
    parser.add_argument("--seeds", default="0,1,2", metavar="N,N,...", help="default: 0,1,2")
    parser.add_argument("--split", choices=["val", "test"], default="test", help="to score on; tune on val")
    parser.add_argument("--out", metavar="FILE", help="write the accuracies to this JSON file")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of all configs"
    )
    arguments = parser.parse_args(argv)
    try:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds {arguments.seeds}: whole numbers with commas between them are needed")

    from dfad_seg.digits import run_digits  # after --help: importing torch takes seconds

    run_digits(
        arguments.configs, seeds=seeds, split=arguments.split, out=arguments.out, overrides=arguments.cfg_options
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
