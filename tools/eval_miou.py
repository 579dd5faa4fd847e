"""The same as `dfad-seg eval`: see --help."""

import sys

from dfad_seg.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]], program="eval_miou.py"))
