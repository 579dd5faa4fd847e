"""The table of commands, and how each of them starts and ends."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from dfad_seg.common.environment import good_neighbour
from dfad_seg.common.errors import Diverged, InputError, Interrupted, machine_fault, nearest

COMMANDS = {
    "train": "train a teacher, or distil one into a student",
    "eval": "score a network, a run or stored predictions",
    "export": "write a trained network as ONNX, TorchScript, safetensors, …",
    "inspect": "say what a checkpoint is, and write a config to start from",
    "prepare": "put a data set in place, or check one",
    "compare": "tables and the size-share curve of several runs",
    "report": "write the report of a run anew",
    "demo": "compress a small network without data, score it, draw it",
    "configs": "list the configs that are shipped",
}
"""Command → what it does; its module is dfad_seg.cli.COMMAND."""

COMPUTING = {"train", "eval", "export", "inspect", "demo"}
"""Those that run networks."""

EXIT_BAD_INPUT = 2
EXIT_DIVERGED = 3
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None, *, program: str | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: command and arguments; default: those of the process.
        program: how the command is called, for its help; default: `dfad-seg COMMAND`.
    """
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help"):
        print(_usage())
        return 0
    if command == "--version":
        from dfad_seg.common.environment import environment  # imports torch

        print(environment())
        return 0
    if command not in COMMANDS:
        suggestion = f"{nearest(command, COMMANDS)} Known: {', '.join(COMMANDS)}."
        print(f"error: unknown command '{command}'.{suggestion}", file=sys.stderr)
        return EXIT_BAD_INPUT
    good_neighbour()
    module = importlib.import_module(f"dfad_seg.cli.{command}")
    parser = argparse.ArgumentParser(
        prog=program or f"dfad-seg {command}",
        description=(module.__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    arguments = parser.parse_args(rest)
    with Guard() as guard, _numerics(command):
        guard.code = module.run(arguments)
    return guard.code


def _numerics(command: str) -> AbstractContextManager[None]:
    """Denormal numbers count as zero in every command that runs a network: they cost a CPU dozens of cycles each."""
    if command not in COMPUTING:
        return nullcontext()
    from dfad_seg.common.speed import denormals_as_zero  # imports torch, as these commands do anyway

    return denormals_as_zero()


class Guard:
    """How every command ends: with an exit code, without a traceback for what a user can mend.

    0: done; 2: bad input; 3: training diverged; 128 + the signal's number: stopped by it, and saved if it was training.
    """

    code = 0

    def __enter__(self) -> Guard:
        for stream in (sys.stdout, sys.stderr):
            # A terminal that cannot show a character shows another; no result is lost for it.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None:
            try:
                sys.stdout.flush()
            except OSError as fault:
                error = fault
            else:
                return True
        if isinstance(error, InputError):
            self.code = _end(f"error: {error}", EXIT_BAD_INPUT)
        elif isinstance(error, Diverged):
            self.code = _end(f"error: {error}", EXIT_DIVERGED)
        elif isinstance(error, Interrupted):
            self.code = _end(str(error), 128 + error.signal_number)
        elif isinstance(error, KeyboardInterrupt):
            self.code = _end("interrupted", EXIT_INTERRUPTED)
        elif isinstance(error, BrokenPipeError):
            # The reader of our output went away, as in `... | head`: what the interpreter still holds goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        elif isinstance(error, OSError) and (message := machine_fault(error)) is not None:
            self.code = _end(f"error: {message}", EXIT_BAD_INPUT)
        else:
            return False
        return True


def _end(message: str, code: int) -> int:
    try:
        print(message, file=sys.stderr)
    except OSError:
        pass  # the exit code still says it
    return code


def _usage() -> str:
    lines = ["usage: dfad-seg COMMAND ...", "", "Compress semantic-segmentation networks without their data.", ""]
    lines += [f"  {command:<9} {about}" for command, about in COMMANDS.items()]
    lines += ["", "  COMMAND --help shows a command's options; --version shows the environment.", ""]
    lines.append("A config is a file, or the name of one that is shipped: dfad-seg train camvid/recommended_cpu_30min")
    return "\n".join(lines)
