"""Make a results table from run directories. See --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dfad_seg.cli import run_tool


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Print a Markdown table of finished runs against their teacher's run. Test numbers are those that "
        "eval_miou.py wrote with --out RUN/test_metrics.json."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories of students")
    parser.add_argument("--teacher", required=True, metavar="RUN", help="run directory of their teacher")
    parser.add_argument("--into", metavar="FILE", help="put the table into this Markdown file instead of printing it")
    parser.add_argument("--name", metavar="NAME", help="with --into: between <!-- begin NAME --> and <!-- end NAME -->")
    arguments = parser.parse_args(argv)
    if (arguments.into is None) != (arguments.name is None):
        parser.error("--into and --name go together")

    from dfad_seg.runs.summary import put_into, results_table

    table = results_table(arguments.runs, teacher=arguments.teacher)
    if arguments.into is None:
        print(table, end="")
    else:
        put_into(arguments.into, arguments.name, table)
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
