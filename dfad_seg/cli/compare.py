"""Compare runs: a table of mean ± standard deviation over seeds, and the curve of size against quality.

examples:
  dfad-seg compare runs/a_seed0 runs/a_seed1 runs/a_seed2 --split test
  dfad-seg compare runs/cut_* runs/random_* --teacher runs/teacher --out runs/compared
  dfad-seg compare runs/a_seed* --setting camvid-cut-67 --results docs/results.json

Runs that differ in their seed alone are one row. Nothing is selected: last (or averaged) weights count."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="run directories")
    add("--teacher", metavar="RUN", help="the teacher's run, where the runs themselves do not hold its score")
    add("--split", help="that was scored, e.g. test (default: that of the runs)")
    add("--out", metavar="DIR", help="write comparison.md, .json, .csv and .svg there")
    add("--results", metavar="FILE", help="put the rows into this list of results (JSON)")
    add("--setting", help="name of the row's setting, where there is one row")
    add("--method", help="name of the row's method, where there is one row")


def run(arguments: argparse.Namespace) -> int:
    from dfad_seg.recipes.compare import compare_runs

    compare_runs(**vars(arguments))
    return 0
