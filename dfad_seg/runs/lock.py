"""One run per folder: a lock that the system takes back from a process that ends, and a note of who holds it."""

import os
from pathlib import Path

from filelock import FileLock, Timeout

from dfad_seg.common.errors import InputError

LOCK = "run.lock"
ORPHANS_SECONDS = 15.0
"""A killed run's loader processes hold its lock until they notice that it is gone."""


class RunLock:
    """The file `run.lock` in a folder that exists, held by this process from `acquire` to `release`."""

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / LOCK
        self._lock = FileLock(self.path, mode=0o666)

    def acquire(self) -> None:
        """Take the lock; raises InputError where another process holds it."""
        try:
            self._lock.acquire(timeout=0.5)
        except Timeout:
            text = self.path.read_bytes()[:20].decode("ascii", "replace")
            owner = text if text.isdigit() else "?"
            try:
                self._lock.acquire(timeout=0 if owner == "?" or Path(f"/proc/{owner}").exists() else ORPHANS_SECONDS)
            except Timeout:
                raise InputError(
                    f"the work-dir {self.path.parent} is in use: process {owner} runs in it. "
                    "Wait for that run, stop it, or give another --work-dir."
                ) from None
        try:
            self.path.write_text(str(os.getpid()), encoding="utf-8")
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
    if (Path(folder) / LOCK).is_file():
        lock = RunLock(folder)
        lock.acquire()
        lock.release()
