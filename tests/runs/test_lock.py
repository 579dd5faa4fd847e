"""The lock of a run directory: who holds it, and that it is free when its owner has ended, however it did."""

import os

import pytest

from dfad_seg.common.errors import InputError
from dfad_seg.runs.lock import RunLock, refuse_held


def test_a_lock_is_held_and_given_back(tmp_path):
    lock = RunLock(tmp_path)
    lock.acquire()
    for take in (lambda: RunLock(tmp_path).acquire(), lambda: refuse_held(tmp_path)):
        with pytest.raises(InputError, match=f"in use: process {os.getpid()} runs in it.*--work-dir"):
            take()
    lock.release()
    refuse_held(tmp_path)
    lock.release()  # twice is once
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"\x1b[31m", b"\xff"])
def test_what_the_lock_file_says_matters_for_the_message_only(tmp_path, content):
    (tmp_path / "run.lock").write_bytes(content)  # left behind, or written by somebody else
    lock = RunLock(tmp_path)
    lock.acquire()
    lock.path.write_bytes(content)
    with pytest.raises(InputError, match="is in use") as caught:
        RunLock(tmp_path).acquire()
    assert "\x1b" not in str(caught.value)
    lock.release()
