"""The command line: `dfad-seg COMMAND …`, `python -m dfad_seg COMMAND …`, and the two files of tools/."""

from dfad_seg.cli.arguments import COMMANDS
from dfad_seg.cli.commands import main
