"""The command line: `dfad-seg COMMAND …`, `python -m dfad_seg COMMAND …`, and the two files of tools/.

A command is a module with `add_arguments(parser)` and `run(arguments) -> exit code`; its docstring's first line is its
help. What imports torch is imported in `run`, so that no help page waits for it.
"""

from dfad_seg.cli.commands import COMMANDS, main

__all__ = ["COMMANDS", "main"]
