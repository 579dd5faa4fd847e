"""The same as `dfad-seg train`: see --help."""

import sys

from dfad_seg.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]], program="train_seg.py"))
