"""The three ways in which a command ends early, and how unknown names are reported."""

import difflib
import errno
import logging
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any


class InputError(Exception):
    """Bad input: a config value, a path, a file's content, a checkpoint.

    The message is one readable text that says what was found, where, what is needed and what to do.
    The command line tools print it to stderr without a traceback and exit with code 2.
    """


class Interrupted(Exception):
    """A run was asked to stop (Ctrl-C, SIGTERM) and has saved its state after `iteration`."""

    def __init__(self, iteration: int, signal_number: int = 2) -> None:
        super().__init__(iteration)
        self.iteration, self.signal_number = iteration, signal_number
        self.where: str | None = None

    def __str__(self) -> str:
        place = f" in {self.where}" if self.where else ""
        return f"stopped after iteration {self.iteration}; saved{place}, from where the run can be resumed"


class Stopped(KeyboardInterrupt):
    """The signal of this number: as with Ctrl-C, what is half-written is removed on the way out."""


class Diverged(Exception):
    """Training went wrong, and the policy is to stop; what was saved before is still good.

    `kept` is the network to keep as it was after `iteration`, the last one saved before; None if there is none.
    """

    def __init__(self, message: str, *, kept: Any = None, iteration: int = 0) -> None:
        super().__init__(message)
        self.kept = kept
        self.iteration = iteration


EXIT_BAD_INPUT, EXIT_DIVERGED = 2, 3


def exit_code(error: BaseException) -> int | None:
    """How a command ends with an error; None for a fault of the program."""
    if isinstance(error, Diverged):
        return EXIT_DIVERGED
    if isinstance(error, Interrupted):
        return 128 + error.signal_number
    if isinstance(error, KeyboardInterrupt):
        return 128 + (error.args[0] if isinstance(error, Stopped) else 2)
    return EXIT_BAD_INPUT if isinstance(error, (InputError, MemoryError, OSError)) else None


OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|out of memory|not enough memory|calculation overflow|worker .*(exited unexpectedly|Killed)",
    re.IGNORECASE,
)
"""What torch says where memory is lacking, in errors of no type of their own."""
FILES_ADVICE = "Raise the limit (ulimit -n) or lower num_workers"
_ADVICE = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space, or ask for a larger quota",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "Choose a place that can be written",
    errno.EACCES: "Mend the permissions",
    errno.EPERM: "Mend the permissions",
    errno.EMFILE: FILES_ADVICE,
    errno.ENFILE: FILES_ADVICE,
    errno.EIO: "Check the disk",
    errno.ESTALE: "Check the network disk",
    errno.ENOMEM: "Free some memory",
}


def machine_fault(error: OSError) -> str | None:
    """What a full disk, a lack of permission or of open files says to a user; None for other errors."""
    advice = _ADVICE.get(error.errno or 0)
    where = f" ({printable(error.filename)})" if error.filename else ""
    return None if advice is None else f"{error.strerror}{where}. {advice}."


def shortened(text: str, length: int = 60) -> str:
    """At most `length` characters of a text, for a message."""
    return text if len(text) <= length else text[: length - 3] + "..."


def printable(text: object, length: int = 200) -> str:
    """A foreign text (a class name, a tensor's key) for a message: one line, no control characters, cut."""
    return shortened("".join(c if c.isprintable() else "\ufffd" for c in str(text)), length)


def some(names: Sequence[object], most: int = 3, separator: str = ", ") -> str:
    """The first of foreign texts for a message, and how many more there are."""
    shown = separator.join(map(printable, names[:most]))
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


@contextmanager
def explained(message: str, advice: str = "") -> Iterator[None]:
    """Whatever another program raises within the block, but a full disk and the like, becomes an `InputError`: the
    message, its type and the first line of its text, the advice."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (InputError, MemoryError)) or (isinstance(error, OSError) and machine_fault(error)):
            raise
        first = next(iter(str(error).strip().splitlines()), "no details")
        raise InputError(f"{message} ({type(error).__name__}: {printable(first, 300)}). {advice}".rstrip()) from error


TRUST_ADVICE = "If you trust it: --trust (eval, export, inspect), trust: true in your config, trust=True in Python."
"""What everything says that would run a stranger's code."""


@contextmanager
def quiet(*loggers: logging.Logger) -> Iterator[None]:
    """No warnings inside the block, and nothing below errors from these loggers."""
    levels = {logger: logger.level for logger in loggers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in levels:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in levels.items():
                logger.setLevel(level)


def require(extra: str, *packages: str) -> None:
    """Raise an `InputError` that says what to install if a package of one of our extras is missing."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(f"this needs {', '.join(missing)}, which is not installed: pip install 'dfad-seg[{extra}]'.")


def nearest(name: str, known: Iterable[str]) -> str:
    """A suggestion for a misspelt `name`: `" Did you mean 'x'?"`, or the empty string if nothing is near."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{match[0]}'?" if match else ""


def instead_of(path: str | Path) -> str:
    """What is there in place of a path that is not: the nearest name, or the first ones; nothing if that is hidden."""
    path = Path(path).absolute()
    with suppress(OSError):
        names = sorted(name for name in islice(os.listdir(path.parent), 1000) if name[0] != "." and name != path.name)
        shown = ", ".join(map(printable, names[:5])) + (", ..." if names[5:] else "")
        return nearest(path.name, names) or f" {printable(path.parent)} holds {shown or 'nothing'}."
    return f" There is no {printable(path.parent)} either.{instead_of(path.parent)}"


def choose(table: dict, name: str, what: str):
    """`table[name]`, or an `InputError` that lists the known names of `what` and suggests the nearest."""
    try:
        return table[name]
    except (KeyError, TypeError):  # a list or a mapping is no key
        known = ", ".join(sorted(table))
        raise InputError(f"unknown {what} '{name}'.{nearest(str(name), table)} Known: {known}.") from None
