"""Write report.html into run directories anew, from the files that are there. A run does so itself; this is for those
whose files have changed since, such as another machine's copy."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories")


def run(arguments: argparse.Namespace) -> int:
    from dfad_seg.recipes.finishing import report_run

    for path in arguments.runs:
        print(report_run(path))
    return 0
