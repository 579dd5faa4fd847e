"""The lock of a run directory: who holds it, and that it is free when its owner has ended, however it did."""

import os
import signal
import subprocess
import sys

import pytest

from dfad_seg.common.errors import InputError
from dfad_seg.runs.lock import RunLock, refuse_held

HOLD = """
import sys, time
from dfad_seg.runs.lock import RunLock
lock = RunLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_held_and_given_back(tmp_path):
    lock = RunLock(tmp_path)
    lock.acquire()
    with pytest.raises(InputError, match=f"in use: process {os.getpid()} runs in it.*--work-dir"):
        RunLock(tmp_path).acquire()
    lock.release()
    refuse_held(tmp_path)
    lock.release()  # twice is once
    assert list(tmp_path.iterdir()) == []


def test_another_process_holds_it_until_it_is_killed(tmp_path, other):
    for take in (lambda: RunLock(tmp_path).acquire(), lambda: refuse_held(tmp_path)):
        with pytest.raises(InputError, match=f"in use: process {other.pid} runs"):
            take()
    other.send_signal(signal.SIGKILL)
    other.wait()
    lock = RunLock(tmp_path)
    lock.acquire()
    assert (tmp_path / "run.lock").read_text() == str(os.getpid())
    lock.release()


@pytest.mark.parametrize("content", [b"", b"{", b"\x1b[31m", b"\xff"])
def test_what_the_file_says_matters_for_the_message_only(tmp_path, content):
    (tmp_path / "run.lock").write_bytes(content)  # left behind, or written by somebody else
    lock = RunLock(tmp_path)
    lock.acquire()
    lock.path.write_bytes(content)
    with pytest.raises(InputError, match="is in use") as caught:
        RunLock(tmp_path).acquire()
    assert "\x1b" not in str(caught.value)
    lock.release()
