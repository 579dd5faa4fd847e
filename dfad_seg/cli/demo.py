"""Draw street scenes, train a DeepLab teacher, distil it without data, compare."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work-dir", default="runs/demo", metavar="DIR", help="default: runs/demo")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of all stages")


def run(arguments: argparse.Namespace) -> int:
    from dfad_seg.recipes.demo import run_demo

    run_demo(arguments.work_dir, overrides=arguments.cfg_options)
    return 0
