"""Several processes of one run end together: with one message, one exit code, within seconds."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.launchers import subprocess_script
from torch.distributed import TCPStore

from dfad_seg.common.errors import EXIT_BAD_INPUT, InputError, Interrupted, exit_code
from dfad_seg.config import Config
from dfad_seg.recipes.device import launched

LOOK = 0.5
"""Seconds between two looks at the others."""
GRACE = 4.0
"""Seconds that a process may take to end by itself once another has ended; rank 0 has files to close, and five times
as many."""
_LOST = re.compile(r"connection (was )?(closed|reset|refused)|broken pipe|gloo|nccl|timed out", re.IGNORECASE)


class _PeerEnded(RuntimeError):
    """Raised in the main thread of a process when another one of the run has ended."""


@contextmanager
def together(config: Config, decided: str | None = None) -> Iterator[Fabric]:
    """The processes of an experiment, see `launched`. Where one fails inside the block, the others end as well: one of
    all says why, and each ends with the same exit code, a SystemExit in those that say nothing."""
    children: list[subprocess.Popen] = []
    # Fabric's own observer would kill this process beside the others, at once and without a word.
    kept_observer = subprocess_script._launch_process_observer
    subprocess_script._launch_process_observer = lambda child_processes: children.extend(child_processes)
    try:
        fabric = launched(config, decided)
    finally:
        subprocess_script._launch_process_observer = kept_observer
    if fabric.world_size == 1 or threading.current_thread() is not threading.main_thread():
        yield fabric
        return
    peers = _Peers(fabric, children)
    kept = signal.signal(signal.SIGUSR1, _raise)
    threading.Thread(target=peers.watch, daemon=True).start()
    try:
        yield fabric
    except BaseException as error:
        peers.over.set()
        peers.end(error)
        raise
    finally:
        peers.over.set()
        signal.signal(signal.SIGUSR1, kept)


def _raise(number: int, frame: object) -> None:
    raise _PeerEnded


class _Peers:
    """The processes of a run, and a small store in rank 0 for the first one that fails to say so."""

    def __init__(self, fabric: Fabric, children: list[subprocess.Popen]) -> None:
        self.rank, self.others, self.children = fabric.global_rank, fabric.world_size - 1, children
        self.over = threading.Event()
        host, wait = os.environ.get("MASTER_ADDR", "127.0.0.1"), timedelta(seconds=GRACE)
        served = TCPStore("0.0.0.0", 0, None, True, wait, wait_for_workers=False) if self.rank == 0 else None
        port = fabric.broadcast(0 if served is None else served.port)
        self.store = served or TCPStore(host, port, None, False, wait)

    def watch(self) -> None:
        """In a thread: where another process has ended, let this one end as well."""
        while not self.over.wait(LOOK):
            code = self._ended()
            if code is None:
                continue
            os.kill(os.getpid(), signal.SIGUSR1)
            if not self.over.wait(GRACE * (1 if self.rank else 5)):  # it waits for the other, in a library
                self._left()
                os._exit(code)
            return

    def _ended(self) -> int | None:
        """The exit code of the run, if a process of it has ended."""
        with suppress(RuntimeError):
            if self.store.check(["code"]):
                return int(self.store.get("code"))
            killed = any(child.poll() not in (None, 0) for child in self.children)
            return EXIT_BAD_INPUT if killed else None
        return EXIT_BAD_INPUT  # rank 0 is gone

    def end(self, error: BaseException) -> None:
        """Return where this process is to say what is wrong with `error`; raise what it ends with where it is not."""
        lost = isinstance(error, (_PeerEnded, torch.distributed.DistError)) or (
            isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None
        )
        code = EXIT_BAD_INPUT if lost else exit_code(error) or 1
        rank_0_speaks = self.rank > 0 and isinstance(error, Interrupted)  # which has a report to write
        first, code = self._agree(code, patience=GRACE if lost or rank_0_speaks else 0)
        self._left()
        if self.rank == 0:  # the store is here: it must be there until the others have seen it
            until = time.monotonic() + (2 * LOOK if lost else 2 * GRACE)
            with suppress(RuntimeError):
                while self.store.add("left", 0) <= self.others and time.monotonic() < until:
                    time.sleep(LOOK / 5)
        if first and lost:
            raise InputError(
                "another process of this run has ended without a message: it was killed, or its machine is gone. "
                "What was saved is whole: repeat the command, with --resume if there is a checkpoint."
            ) from None
        if not first:
            raise SystemExit(code) from None

    def _agree(self, code: int, patience: float) -> tuple[bool, int]:
        """Whether this process is the first that failed, and the exit code of the first; one that merely lost another
        lets that one speak."""
        until = time.monotonic() + patience
        try:
            while time.monotonic() < until and not self.store.check(["code"]):
                time.sleep(LOOK / 5)
            if self.store.add("failed", 1) == 1:
                self.store.set("code", str(code))
                return True, code
            return False, int(self.store.get("code"))
        except RuntimeError:  # rank 0 is gone, and its store
            return self.rank == 1, code

    def _left(self) -> None:
        with suppress(RuntimeError):
            self.store.add("left", 1)
