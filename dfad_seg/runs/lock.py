"""One run per folder: a lock that the system takes back from a process that ends, and a note of who holds it."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dfad_seg.common.errors import InputError, printable
from dfad_seg.common.reading import read_json

NAME = "run.lock"
ORPHANS_SECONDS = 15.0
"""A killed run's loader processes hold its lock until they notice that it is gone."""


class RunLock:
    """The file `run.lock` in a folder that exists, held by this process from `acquire` to `release`."""

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / NAME
        self._lock = FileLock(self.path, mode=0o666)

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            InputError: another process holds it.
            OSError: the folder cannot be written.
        """
        try:
            self._lock.acquire(timeout=0.5)
        except Timeout:
            owner = _owner(self.path)
            try:
                self._lock.acquire(timeout=0 if _may_live(owner) else ORPHANS_SECONDS)
            except Timeout:
                raise InputError(_refusal(self.path, owner)) from None
        try:
            self.path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Give the lock back; nothing happens without it."""
        if self._lock.is_locked:
            self.path.unlink(missing_ok=True)
            self._lock.release()


def refuse_held(folder: str | Path) -> None:
    """Raises InputError if a process runs in the folder; nothing is left behind where there is none."""
    if (Path(folder) / NAME).is_file():
        lock = RunLock(folder)
        lock.acquire()
        lock.release()


def _owner(path: Path) -> dict[str, Any]:
    try:
        owner = read_json(path, "the lock", limit=4096)
    except InputError:  # its owner writes it now
        return {}
    return owner if isinstance(owner, dict) else {}


def _may_live(owner: dict[str, Any]) -> bool:
    pid = owner.get("pid")
    return owner.get("host") != socket.gethostname() or not isinstance(pid, int) or Path(f"/proc/{pid}").exists()


def _refusal(path: Path, owner: dict[str, Any]) -> str:
    process = f"process {printable(owner.get('pid', '?'), 20)} on {printable(owner.get('host', '?'), 60)}"
    return (
        f"the work-dir {path.parent} is in use: {process} runs in it. "
        "Wait for that run, stop it, or give another --work-dir."
    )
