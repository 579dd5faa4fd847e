"""How every command line tool starts and ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from dfad_seg.errors import InputError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def run_tool(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Run a tool's `main(argv)`: bad input becomes one message on stderr and exit code 2, without a traceback."""
    try:
        return main(argv) or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away, as in `... | head`.
        sys.stderr.close()
        return 0
