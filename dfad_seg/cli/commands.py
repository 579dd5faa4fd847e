"""How a command starts and ends."""

import argparse
import atexit
import importlib
import inspect
import io
import multiprocessing
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from dfad_seg.cli.arguments import COMMANDS
from dfad_seg.common.environment import good_neighbour, set_signal
from dfad_seg.common.errors import EXIT_BAD_INPUT, Interrupted, Stopped, choose, exit_code, machine_fault, printable

COMPUTING = {"train", "eval", "export", "inspect", "demo"}
"""Those that run networks."""


def main(argv: Sequence[str] | None = None, *, program: str | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: command and arguments; default: those of the process.
        program: how the command is called, for its help; default: `dfad-seg COMMAND`.
    """
    with Guard() as guard:
        command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
        if command in ("-h", "--help"):
            print(_usage())
        elif command == "--version":
            from dfad_seg.common.environment import environment  # imports torch

            print(environment())
        else:
            arguments = vars(parser_of(command, program).parse_args(rest))
            good_neighbour()
            module, _, name = COMMANDS[command].target.partition(":")
            with _numerics(command):
                guard.code = int(getattr(importlib.import_module(module, "dfad_seg.recipes"), name)(**arguments) or 0)
    return guard.code


def parser_of(command: str, program: str | None = None) -> argparse.ArgumentParser:
    """The parser of a command; raises InputError if there is none of this name."""
    arguments = choose(COMMANDS, command, "command").arguments
    parser = argparse.ArgumentParser(
        prog=program or f"dfad-seg {command}",
        description=inspect.getdoc(arguments),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    COMMANDS[command].arguments(parser)
    return parser


@contextmanager
def _numerics(command: str) -> Iterator[None]:
    """For a command that runs a network: denormal numbers, which cost a CPU dozens of cycles each, count as zero; and
    a lack of memory or of open files is said in a line, where nobody inside knows to say it better."""
    if command not in COMPUTING:
        yield
        return
    from dfad_seg.common.speed import denormals_as_zero
    from dfad_seg.recipes.device import explained

    with denormals_as_zero(), explained(batch="this network", advice="Free some, or take smaller images"):
        yield


class Guard:
    """How every command ends: with an exit code, without a traceback for what a user can mend.

    0: done; 2: bad input, a fault of the machine, or words that could not be written; 3: training diverged; 128 + the
    signal's number: stopped by it, and saved if it was training.
    """

    code = 0

    def __enter__(self) -> "Guard":
        for number in range(3):
            try:
                os.fstat(number)
            except OSError:  # closed: what is opened next would be taken for it
                os.open(os.devnull, os.O_RDWR)
        self._kept = sys.stdout, sys.stderr, warnings.formatwarning, sys.unraisablehook
        sys.unraisablehook = _again
        self._words = Words(sys.stdout)
        sys.stdout, sys.stderr = self._words, Words(sys.stderr)
        warnings.formatwarning = lambda message, *_: f"warning: {printable(message, 600)}\n"
        stops = (signal.SIGTERM, signal.SIGHUP)
        heard = [number for number in stops if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup wants
        self._signals = {number: set_signal(number, _stop) for number in heard}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        # A signal more, while the first one is seen to, changes nothing.
        before = {number: set_signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *self._signals)}
        try:
            message, self.code = self._ending(error)
            sys.stdout.flush()
            lost = self._words.fault
            if self.code == 0 and lost is not None and not isinstance(lost, BrokenPipeError):
                # The reader of a pipe may go away, as in `... | head`; a log that is full is a fault.
                message, self.code = f"error: what was to be printed is lost: {lost}.", EXIT_BAD_INPUT
            if message:
                shown = re.sub(r"\S{400,}", lambda word: f"{word[0][:190]}…{word[0][-190:]}", _safe(message))
                print(shown, file=sys.stderr, flush=True)
            return error is None or message is not None
        finally:
            sys.stdout, sys.stderr, warnings.formatwarning, sys.unraisablehook = self._kept
            for number, handler in (before | self._signals).items():
                set_signal(number, handler)
            atexit.register(_at_the_end)

    def _ending(self, error: BaseException | None) -> tuple[str | None, int]:
        code = None if error is None else exit_code(error)
        if code is None:
            return None, self.code
        if isinstance(error, MemoryError):
            return "error: out of memory. Free some, or ask for less at once.", code
        if isinstance(error, OSError):
            place = f" ({printable(error.filename)})" if error.filename else ""
            return f"error: {machine_fault(error) or f'{error.strerror or error}{place}.'}", code
        if isinstance(error, Stopped):
            return f"stopped by {signal.Signals(error.args[0]).name}", code
        if isinstance(error, KeyboardInterrupt):
            return "interrupted", code
        return str(error) if isinstance(error, Interrupted) else f"error: {error}", code


def _stop(number: int, frame: object) -> None:
    raise Stopped(number)


def _again(lost: Any) -> None:
    """A signal that came where nothing can be raised, as in a weak reference's callback, comes again a moment later."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        threading.Timer(0.05, signal.raise_signal, lost.exc_value.args or (signal.SIGINT,)).start()
    else:
        sys.__unraisablehook__(lost)


def _at_the_end() -> None:
    """A signal changes nothing while the process ends; loaders' workers, which ignore SIGTERM, are not waited for."""
    set_signal(signal.SIGINT, signal.SIG_IGN)
    for worker in multiprocessing.active_children():
        worker.kill()


class Words:
    """What a command prints: plain text, for a reader who may go away and a log that may be full, without an error.

    Attributes:
        fault: why no more is written; None as long as all was.
        terminal: the same for a progress bar, whose control characters stay.
    """

    def __init__(self, stream: Any, *, controls: bool = False) -> None:
        self._stream = open(os.devnull, "w", encoding="utf-8") if stream is None else stream  # noqa: SIM115
        self.fault: Exception | None = None
        self._controls = controls
        self.terminal = self if controls else Words(self._stream, controls=True)
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character shows another.
            with suppress(OSError, ValueError):  # it empties its buffer first
                stream.reconfigure(errors="replace")

    def write(self, text: str) -> int:
        self._try(self._stream.write, text if self._controls else _safe(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Any, *arguments: Any) -> None:
        if self.fault is None:
            try:
                act(*arguments)
            except (OSError, ValueError) as error:
                self.fault = error
                with suppress(OSError, ValueError):  # what the interpreter still holds goes nowhere
                    os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _safe(text: str) -> str:
    """Without control characters, and without a line after the first that looks as if it were the program's error."""
    shown = "".join(c if c.isprintable() or c in "\n\t" or c == "\xa0" else "\ufffd" for c in text)
    return shown.replace("\nerror:", "\n error:")


def _usage() -> str:
    lines = ["usage: dfad-seg COMMAND ...", "", "Compress semantic-segmentation networks without their data.", ""]
    lines += [f"  {name:<9} {command.about}" for name, command in COMMANDS.items()]
    lines += ["", "  COMMAND --help shows a command's options; --version shows the environment.", ""]
    lines.append("A config is a file, or the name of one that is shipped: dfad-seg train camvid/recommended_cpu_30min")
    return "\n".join(lines)
