"""Write the machine-readable list of results from run directories. See --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dfad_seg.cli import run_tool


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Write a JSON list of results, one row per entry of a YAML list that says which runs belong to "
        "which setting. Test numbers are those in RUN/test_metrics.json. Rows of runs that are not here stay as FILE "
        "has them."
    )
    parser.add_argument("listing", nargs="?", default="docs/results.yaml", metavar="LIST", help="docs/results.yaml")
    parser.add_argument("--out", default="docs/results.json", metavar="FILE", help="default: docs/results.json")
    parser.add_argument("--root", default=".", metavar="DIR", help="folder that the list's paths start from")
    arguments = parser.parse_args(argv)

    from dfad_seg.runs.results import write_results

    write_results(arguments.listing, arguments.out, root=arguments.root)
    print(f"results: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
