"""Make the report of a run anew. See --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dfad_seg.cli import run_tool


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Write report.html and report.md into run directories, from the files that are there. A run "
        "does so itself; this is for runs of earlier versions, and for those whose files have changed since, such as "
        "another machine's copy."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories")
    arguments = parser.parse_args(argv)

    from dfad_seg.report import write_report

    for run in arguments.runs:
        print(write_report(run))
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
