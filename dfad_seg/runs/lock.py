"""One run per folder: a lock file that says who holds it, and that is recognised when its owner is gone."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from dfad_seg.common.errors import InputError

NAME = "run.lock"
BEAT_SECONDS = 5.0
"""How often an owner touches its lock."""
WATCH_SECONDS = 20.0
"""How long a lock of another machine is watched before it counts as left behind."""


class RunLock:
    """The file `run.lock` in a folder, held by this process from `acquire` to `release`.

    It names the process: its number, when it started (in the kernel's ticks since the machine did), the machine's
    start and name. On the same machine that tells a living owner from a number that was given again. The owner on
    another machine touches the file every few seconds; whether it does is seen by comparing, never by reading a clock,
    so that clocks that jump or differ do no harm.

    Args:
        folder: exists.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / NAME
        self._done = threading.Event()
        self._beat: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock, also one that its owner left behind.

        Raises:
            InputError: another run holds it.
            OSError: the folder cannot be written.
        """
        while not self._create():
            content, owner = _read(self.path)
            if is_held(self.path) or (_elsewhere(owner) and _is_touched(self.path)):
                raise InputError(_refusal(self.path, owner))
            self._remove_stale(content)
        self._beat = threading.Thread(target=self._touch, name="run lock", daemon=True)
        self._beat.start()

    def release(self) -> None:
        """Give the lock back; nothing happens without it."""
        if self._beat is None:
            return
        self._done.set()
        self._beat.join()
        self._beat = None
        if _read(self.path)[1] == own_record():
            self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        try:
            os.write(handle, json.dumps(own_record()).encode())
        except OSError:
            self.path.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        return True

    def _remove_stale(self, content: bytes) -> None:
        # Of several that come at once only one can rename the file, and it looks at what it got.
        aside = self.path.with_name(f".{NAME}.{os.getpid()}.tmp")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        if aside.read_bytes() != content:
            os.rename(aside, self.path)
            return
        aside.unlink()
        owner = _parse(content)
        print(
            f"{self.path.parent}: took over the lock that process {owner.get('pid', '?')} on {owner.get('host', '?')} "
            "left behind",
            file=sys.stderr,
        )

    def _touch(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            try:
                os.utime(self.path)
            except OSError:
                pass  # the disk is away for a moment, or the user removed the file


def is_held(path: str | Path) -> bool:
    """Whether the lock file's owner is a living process of this machine, as far as this process can see."""
    owner = _read(Path(path))[1]
    if not owner or _elsewhere(owner):
        return False
    return _start_ticks(owner.get("pid")) == owner.get("started") is not None


def refuse_held(folder: str | Path) -> None:
    """Raises InputError if a living process of this machine runs in the folder; waits for nothing."""
    path = Path(folder) / NAME
    if is_held(path):
        raise InputError(_refusal(path, _read(path)[1]))


def own_record() -> dict[str, Any]:
    """What this process writes into its locks."""
    return {
        "pid": os.getpid(),
        "started": _start_ticks(os.getpid()),
        "host": socket.gethostname(),
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "namespace": _link("/proc/self/ns/pid"),
    }


def _refusal(path: Path, owner: dict[str, Any]) -> str:
    process = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
    return (
        f"the work-dir {path.parent} is in use: {process} runs in it. "
        f"Wait for that run, stop it, or give another --work-dir. If there is no such process, remove {path}."
    )


def _elsewhere(owner: dict[str, Any]) -> bool:
    """Whether the owner's process number means nothing here: another machine, an earlier start of it, a container."""
    mine = own_record()
    return any(owner.get(key) != mine[key] for key in ("boot", "namespace"))


def _is_touched(path: Path) -> bool:
    """Whether the file changes while we watch. Times are compared with each other, not with a clock."""
    print(f"{path}: of another machine; watching for {WATCH_SECONDS:g} s whether its owner lives", file=sys.stderr)
    first, end = _stamp(path), time.monotonic() + WATCH_SECONDS
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH_SECONDS / 4))
        if _stamp(path) != first:
            return True
    return False


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        with open(path, "rb") as handle:  # opening asks a network file system anew
            status = os.fstat(handle.fileno())
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def _start_ticks(pid: object) -> int | None:
    """When a process started, in ticks since the machine did; None if there is none, or it has ended."""
    if not isinstance(pid, int):
        return None
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return None if fields[0] in "ZX" else int(fields[19])


def _read(path: Path) -> tuple[bytes, dict[str, Any]]:
    try:
        content = path.read_bytes()
    except OSError:
        return b"", {}
    return content, _parse(content)


def _parse(content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except ValueError:  # its owner was killed while it wrote, or writes it now
        return {}
    return record if isinstance(record, dict) else {}


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
