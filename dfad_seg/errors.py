"""The three ways in which a command ends early, and how unknown names are reported."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Bad input: a config value, a path, a file's content, a checkpoint.

    The message is one readable text that says what was found, where, what is needed and what to do.
    The command line tools print it to stderr without a traceback and exit with code 2.
    """


class Interrupted(Exception):
    """A run was asked to stop (Ctrl-C, SIGTERM) and has saved its state after `iteration`."""

    def __init__(self, iteration: int) -> None:
        super().__init__(iteration)
        self.iteration = iteration
        self.where: str | None = None
        self.signal_number = 2

    def __str__(self) -> str:
        place = f" in {self.where}" if self.where else ""
        return f"stopped after iteration {self.iteration}; saved{place}, from where the run can be resumed"


class Diverged(Exception):
    """Training gave a number that is not finite; what was saved before is still good."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A suggestion for a misspelt `name`: `" Did you mean 'x'?"`, or the empty string if nothing is near."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{match[0]}'?" if match else ""


def choose(table: dict, name: str, what: str):
    """`table[name]`, or an `InputError` that lists the known names of `what` and suggests the nearest."""
    try:
        return table[name]
    except KeyError:
        known = ", ".join(sorted(table))
        raise InputError(f"unknown {what} '{name}'.{nearest(name, table)} Known: {known}.") from None
