"""The lock of a run directory: who holds it, and that it is free when its owner has ended, however it did."""

import multiprocessing
import os
import time

import pytest

from dfad_seg.common.errors import InputError
from dfad_seg.runs.directory import RunLock, refuse_held


def hold(path, held):
    lock = RunLock(path)
    lock.acquire()
    held.set()
    time.sleep(60)


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=hold, args=(tmp_path, held := context.Event()), daemon=True)
    process.start()
    assert held.wait(60)
    yield process
    process.kill()
    process.join()


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
    other.kill()
    other.join()
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
