"""How every command line tool starts and ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from dfad_seg.common.errors import Diverged, InputError, Interrupted, machine_fault

EXIT_BAD_INPUT = 2
EXIT_DIVERGED = 3
EXIT_INTERRUPTED = 130


def run_tool(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Run a tool's `main(argv)` and return its exit code, without a traceback for what a user can mend.

    0: done; 2: bad input; 3: training diverged; 128 + the signal's number: stopped by it, and saved if it was training.
    """
    try:
        return main(argv) or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except Diverged as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_DIVERGED
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 128 + stop.signal_number
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away, as in `... | head`.
        sys.stderr.close()
        return 0
    except OSError as error:
        message = machine_fault(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return EXIT_BAD_INPUT
