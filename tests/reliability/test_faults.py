"""Faults of the machine: exit code 2, one readable line, nothing lost, and the run goes on afterwards."""

import contextlib
import errno
import io
import os
import shutil
import signal
import socket
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from harness import assert_equal_runs, tiny_config

from dfad_seg.cli.commands import Guard
from dfad_seg.common import files
from dfad_seg.common.errors import InputError
from dfad_seg.config import load_config
from dfad_seg.recipes import train
from dfad_seg.recipes.device import explained
from dfad_seg.runs import Run, checkpoints, directory, read_checkpoint


def message(output):
    assert "Traceback" not in output, output
    (line,) = [text for text in output.splitlines() if text.startswith("error: ")]
    return line


def test_two_runs_in_one_folder(server, undisturbed, tmp_path, tiny_scenes):
    config = tiny_config(tmp_path, tiny_scenes, iterations=100_000, evaluation=..., dataset=..., num_classes=11)
    run = tmp_path / "run"
    number = server.start("train", config, "--work-dir", run)
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/*.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    for more in ([], ["--resume"]):
        server.output.write_text("")
        code, output = server.call("train", config, "--work-dir", run, *more)
        assert code == 2, output
        said = message(output)
        assert ("holds a run already" in said) if not more else (f"process {number} runs" in said)
    os.kill(number, signal.SIGKILL)
    assert server.wait(number) == -signal.SIGKILL
    newest = max(path.name for path in run.glob("checkpoints/*.pt"))
    number = server.start("train", config, "--work-dir", run, "--resume")
    while max(path.name for path in run.glob("checkpoints/*.pt")) <= newest and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(number, signal.SIGTERM)
    assert server.wait(number) in (143, -signal.SIGTERM)


def test_interrupt_at_the_keyboard_is_heard_by_loaders_too_and_saves(server, tmp_path, tiny_scenes):
    """As a terminal and most schedulers send it: to the whole group, worker processes that read images included."""
    left_out = dict.fromkeys(("student", "generator", "student_steps", "replay", "ema_decay"), ...)
    method = {"method": "supervised", "training_data": {"num_workers": 1}, "iterations": 100_000, "save_every": 0}
    config, run = tiny_config(tmp_path, tiny_scenes, **left_out, **method), tmp_path / "run"
    number = server.start("train", config, "--work-dir", run)
    deadline = time.monotonic() + 120
    while not ((run / "metrics.jsonl").exists() and Run(run).records) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(server.process.pid, signal.SIGINT)
    code, output = server.wait(number), server.output.read_text()
    assert code == 130 and "can be resumed" in output and "Traceback" not in output, output
    (saved,) = checkpoints(run)
    assert 0 < read_checkpoint(saved)["iteration"] < 100_000 and not list(run.glob("*.pt"))


@pytest.mark.parametrize("fault", ["killed", "stopped", "a bad image"])
def test_several_processes_end_together(server, tmp_path, tiny_scenes, fault):
    """One message, one exit code, within seconds: whichever of them it was, and whatever the others wait for."""
    data, run = shutil.copytree(tiny_scenes, tmp_path / "data"), tmp_path / "run"
    if fault == "a bad image":
        sorted((data / "val").iterdir())[1].write_bytes(b"none")  # which rank 1 reads
    config = tiny_config(tmp_path, data, iterations=100_000)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["train", config, "--work-dir", run, "--devices", 2]
    numbers = [server.start(*arguments, ranks=(rank, port)) for rank in range(2)]
    deadline = time.monotonic() + 120
    while fault != "a bad image" and not list(run.glob("checkpoints/*.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    if fault != "a bad image":
        os.kill(numbers[fault == "killed"], signal.SIGKILL if fault == "killed" else signal.SIGTERM)
    codes, says = {
        "killed": ([2, -signal.SIGKILL], "ended without a message: it was killed"),
        "stopped": ([143, 143], "from where the run can be resumed"),
        "a bad image": ([2, 2], "not a readable image file"),
    }[fault]
    assert [server.wait(number) for number in numbers] == codes
    output = server.output.read_text()
    assert output.count(says) == 1 and "Traceback" not in output
    if fault == "stopped":
        saved = read_checkpoint(checkpoints(run)[-1])["iteration"]
        assert f" {saved}; saved" in output and "warning: the report" not in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_where_nothing_can_be_raised_comes_again(number):
    with Guard() as guard:
        gone = lambda: None  # noqa: E731
        kept = weakref.ref(gone, lambda _: signal.raise_signal(number))
        del gone
        time.sleep(5)
    assert kept() is None and guard.code == 128 + number


def test_a_limit_on_file_sizes(server, undisturbed, tmp_path):
    run = tmp_path / "run"
    code, output = server.call("train", undisturbed.config, "--work-dir", run, RLIMIT_FSIZE=20_000)
    assert code == 2 and "File too large" in message(output) and "ulimit -f" in output
    assert not run.exists()


def test_too_few_open_files(server, undisturbed, tmp_path):
    options = ["--cfg-options", "evaluation.num_workers=2", "evaluation.every=1"]
    code, output = server.call("train", undisturbed.config, "--work-dir", tmp_path / "run", *options, RLIMIT_NOFILE=14)
    # torch's own destructors may complain beside it.
    (line,) = [text for text in output.splitlines() if text.startswith("error: ")]
    assert code == 2 and "ulimit -n" in line, output


def test_too_little_memory(server, undisturbed, tmp_path):
    options = ["--cfg-options", "batch_size=65000", "replay=null"]
    run = tmp_path / "run"
    code, output = server.call("train", undisturbed.config, "--work-dir", run, *options, RLIMIT_AS=2**29)
    said = message(output)
    assert code == 2 and "out of memory with batch_size 65000 at 16x16" in said, output
    assert "Lower batch_size" in said and not run.exists()


@pytest.mark.parametrize(
    "error, says",
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of ..."),
            "out of GPU memory with batch 7, where 2.50 GiB more were needed. Lower it.",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes. Error code 12"),
            "out of memory with batch 7, where 4096 bytes more were needed. Lower it.",
        ),
        (MemoryError(), "out of memory with batch 7. Lower it."),
        (RuntimeError("DataLoader worker (pid(s) 9) exited unexpectedly"), "out of memory with batch 7. Lower it."),
        (
            RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed. "),
            "out of memory with batch 7. Lower it.",
        ),
        (RuntimeError("received 0 items of ancdata"), r"ulimit -n\) or lower num_workers."),
        (OSError(28, "No space left on device", "x/y.pt"), r"No space left on device \(x/y.pt\). Free some space."),
    ],
)
def test_messages(error, says):
    with (
        pytest.raises(InputError, match=says + " Go on."),
        explained(batch="batch 7", advice="Lower it", then=" Go on."),
    ):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), FileNotFoundError(2, "No such file", "x")])
def test_other_errors_are_not_hidden(error):
    with pytest.raises(type(error)), explained(batch="", advice=""):
        raise error


@contextlib.contextmanager
def full_disk(at):
    """The write number `at` within the block, and all after it, find a full disk; gives a list of all of them.

    Counted are files that are written whole, and lines of the metrics.
    """
    note, writes = directory.RunDirectory.note, []

    def spend(what):
        writes.append(what)
        if at is not None and len(writes) >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def synced(handle):
        if not os.path.isdir(f"/proc/self/fd/{handle}"):
            spend("a file")
        os.fsync(handle)

    def noted(self, step, values):
        spend("a line")
        return note(self, step, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "os", SimpleNamespace(**(vars(os) | {"fsync": synced})))
        patch.setattr(directory.RunDirectory, "note", noted)
        yield writes


def tiny_run(config, run, resume=None):
    train(load_config(config), run, resume=resume)


@pytest.fixture(scope="module")
def short(tmp_path_factory, tiny_scenes):
    """A config of two iterations, its undisturbed run, and how many writes that makes."""
    folder = tmp_path_factory.mktemp("short")
    config = tiny_config(folder, tiny_scenes, iterations=2, save_every=1, log_every=1, replay=..., student_steps=1)
    with full_disk(None) as writes:
        tiny_run(config, folder / "run")
    return config, folder / "run", len(writes)


def check_full_disk(short, run, at):
    """What a disk that is full from write `at` on does: "nothing" is left, the run "resumes", or it is "complete"."""
    config, reference, _ = short
    error, told = None, io.StringIO()
    try:
        with full_disk(at), contextlib.redirect_stderr(told):
            tiny_run(config, run)
    except InputError as found:
        error = found
    # What is there is whole: it is read, and the run goes on from it.
    assert not run.exists() or not [path for path in run.rglob("*.tmp")]
    left = "resumes" if (run / "config.yaml").exists() else "nothing"
    if error is None:  # only the report could not be written any more
        assert "warning: the report" in told.getvalue()
        left = "complete"
    else:
        assert "No space left on device" in str(error)
        tiny_run(config, run, resume="latest" if left == "resumes" else None)
    assert_equal_runs(run, reference)
    shutil.rmtree(run)
    return left


def test_a_disk_that_is_full_at_some_writes(short, tmp_path):
    assert short[2] > 8
    left = [check_full_disk(short, tmp_path / "run", at) for at in (1, short[2] // 2, short[2])]
    assert left == ["nothing", "resumes", "complete"]


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_disk_that_is_full_at_any_write(short, tmp_path):
    left = [check_full_disk(short, Path(tmp_path) / "run", at) for at in range(1, short[2] + 1)]
    assert left == sorted(left, key=["nothing", "resumes", "complete"].index)
    print(f"\nfull disk at each of {short[2]} writes: survived")
