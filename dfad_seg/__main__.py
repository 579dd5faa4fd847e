"""`python -m dfad_seg COMMAND …`."""

import sys

from dfad_seg.cli import main

if __name__ == "__main__":
    sys.exit(main())
