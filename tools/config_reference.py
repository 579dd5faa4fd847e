"""Write the reference of all config keys. See --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dfad_seg.cli import run_tool


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Print the reference of all config keys as Markdown, from the schema and the options' docstrings. "
        "`docs/configuration.md` is made so, and a test compares them."
    )
    parser.add_argument("--out", metavar="FILE", help="write it there instead")
    arguments = parser.parse_args(argv)

    from dfad_seg.common.files import write_text
    from dfad_seg.config.reference import config_reference
    from dfad_seg.recipes.option_reference import option_reference

    page = config_reference() + "\n" + option_reference()
    if arguments.out is None:
        print(page, end="")
    else:
        write_text(arguments.out, page)
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
