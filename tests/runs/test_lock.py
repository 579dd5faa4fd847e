"""The lock of a run directory: who holds it, and when its owner is gone."""

import json
import os
import subprocess
import sys
import threading

import pytest

from dfad_seg.common.errors import InputError
from dfad_seg.runs import lock as module
from dfad_seg.runs.lock import RunLock, is_held, own_record, refuse_held


@pytest.fixture
def held(tmp_path):
    lock = RunLock(tmp_path)
    lock.acquire()
    yield lock
    lock.release()


def leave(folder, **changes):
    (folder / "run.lock").write_text(json.dumps(own_record() | changes))


def ended_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_held_and_given_back(tmp_path):
    lock = RunLock(tmp_path)
    lock.acquire()
    with pytest.raises(InputError, match=f"in use: process {os.getpid()} on .*--work-dir.*remove"):
        RunLock(tmp_path).acquire()
    with pytest.raises(InputError, match="in use"):
        refuse_held(tmp_path)
    lock.release()
    assert list(tmp_path.iterdir()) == []
    refuse_held(tmp_path)
    lock.release()  # twice is once


def test_an_ended_owner_leaves_it_free(tmp_path, capsys):
    pid = ended_process()
    leave(tmp_path, pid=pid)
    lock = RunLock(tmp_path)
    lock.acquire()
    assert f"process {pid}" in capsys.readouterr().err and is_held(lock.path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]
    lock.release()


def test_a_number_that_was_given_again_is_another_process(tmp_path):
    leave(tmp_path, started=own_record()["started"] - 1)
    lock = RunLock(tmp_path)
    lock.acquire()
    lock.release()


def test_the_clock_may_jump(held):
    for seconds in (0, 2**33):
        os.utime(held.path, (seconds, seconds))
        with pytest.raises(InputError, match="in use"):
            RunLock(held.path.parent).acquire()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.4)
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)


@pytest.mark.parametrize("changes", [{"boot": "another"}, {"namespace": "pid:[1]"}, {"host": "h", "boot": None}])
def test_another_machine_that_is_silent_is_gone(tmp_path, quick, changes):
    leave(tmp_path, **changes)
    lock = RunLock(tmp_path)
    lock.acquire()
    lock.release()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_half_a_lock_is_watched_and_taken_over(tmp_path, quick, content):
    (tmp_path / "run.lock").write_bytes(content)
    lock = RunLock(tmp_path)
    lock.acquire()
    lock.release()


def test_another_machine_that_beats_is_alive_whatever_its_clock_says(tmp_path, quick):
    leave(tmp_path, boot="another", host="elsewhere")
    done = threading.Event()

    def beat():
        seconds = 2e9
        while not done.wait(0.05):
            seconds -= 1000  # backwards
            os.utime(tmp_path / "run.lock", (seconds, seconds))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(InputError, match="on elsewhere"):
            RunLock(tmp_path).acquire()
    finally:
        done.set()
        thread.join()


def test_an_owner_beats(tmp_path, quick):
    lock = RunLock(tmp_path)
    lock.acquire()
    os.utime(lock.path, (1, 1))
    assert module._is_touched(lock.path)
    lock.release()


def test_a_lock_that_changed_hands_meanwhile_is_left_alone(tmp_path):
    leave(tmp_path, pid=1)
    RunLock(tmp_path)._remove_stale(b"what was read before")
    assert json.loads((tmp_path / "run.lock").read_text())["pid"] == 1


def test_what_was_taken_over_is_not_removed_by_its_late_owner(held):
    leave(held.path.parent, pid=1)
    held.release()
    assert held.path.exists()
