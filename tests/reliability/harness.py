"""Runs that are killed, and what must hold afterwards."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from shared import experiment, write_yaml
from tiny_networks import network

from dfad_seg.runs import checkpoints
from dfad_seg.runs.checkpoints import checkpoint_iteration
from dfad_seg.segmentors import read_segmentor_file

HERE = Path(__file__).resolve().parent
SAVE_EVERY = 5
WRITES, RENAMES = 300, 12
"""About what a run of 30 iterations makes: writes into checkpoints, files that are renamed."""
KILLED = {"KILL": (-signal.SIGKILL,), "TERM": (143, -signal.SIGTERM), "INT": (130, -signal.SIGINT)}
"""How a process may end after each signal: stopped and saved, or at once where nothing was there to save yet."""


class Server:
    """Starts real processes cheaply, see `server.py`."""

    def __init__(self, output):
        self.output = Path(output)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def _ask(self, request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, tool, *arguments, **fault):
        """A process that runs a tool; returns its number."""
        self.output.write_text("")
        arguments = [str(argument) for argument in arguments]
        return self._ask({"tool": tool, "arguments": arguments, "output": str(self.output), "fault": fault})

    def wait(self, number):
        return self._ask({"wait": number})

    def call(self, tool, *arguments, **fault):
        """The exit code of a tool, and what it printed."""
        code = self.wait(self.start(tool, *arguments, **fault))
        return code, self.output.read_text()

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


def tiny_config(folder, data, name="run.yaml", **changes):
    """A config file with everything that a checkpoint must carry; a step takes milliseconds. `...` removes a key."""
    section = {"source": "factory", "factory": "tiny_networks:network", "mean": [0.5] * 3, "std": [0.5] * 3}
    weights = Path(folder) / "teacher_weights.pt"
    if not weights.exists():
        torch.manual_seed(100)
        torch.save(network(width=8).state_dict(), weights)
    values = {
        "method": "dfad",
        "teacher": section | {"kwargs": {"width": 8}, "checkpoint": str(weights)},
        "student": section,
        "generator": {"type": "dcgan", "latent_dim": 8},
        "evaluation": {"split": "val", "every": 10, "batch_size": 3, "num_workers": 0, "short_side": 16},
        "iterations": 30,
        "image_size": [16, 16],
        "student_steps": 2,
        "replay": {"size": 8, "steps": 1},
        "ema_decay": 0.9,
        "student_optimizer": {"type": "sgd", "lr": 0.01, "momentum": 0.9},
        "log_every": 2,
        "save_every": SAVE_EVERY,
        "device": "cpu",
    }
    return write_yaml(Path(folder) / name, experiment(data=data, **values | changes))


def weights(run):
    """The checksum of a run's student, which reading has compared with its weights."""
    return read_segmentor_file(Path(run) / "student.pt")["sha256"]


def lines(run):
    """The lines of a run's metrics but for the time that they took."""
    texts = (Path(run) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(text).items() if k != "elapsed_s"} for text in texts]


def assert_equal_runs(run, reference):
    assert weights(run) == weights(reference), "another student"
    assert lines(run) == lines(reference)
    assert files_of(run) == files_of(reference), f"left behind, or missing: {files_of(run) ^ files_of(reference)}"
    # Beside the last checkpoint lies the one before, which after SIGTERM or Ctrl-C is that of another iteration.
    assert checkpoints(run)[-1].name == checkpoints(reference)[-1].name
    assert len(checkpoints(run)) == len(checkpoints(reference))


def files_of(run):
    files = {str(path.relative_to(run)) for path in Path(run).rglob("*") if path.is_file()}
    finished = {str(path.relative_to(run)) for path in checkpoints(run)}
    return {name for name in files - finished if not name.startswith("tensorboard")}


def assert_little_lost(run):
    """At most one interval between two checkpoints lies behind the newest one."""
    path = Path(run) / "metrics.jsonl"
    if not path.exists():
        return
    reached = 0
    for text in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # the line in which it was killed
            reached = json.loads(text)["step"]
    saved = max([checkpoint_iteration(path) for path in checkpoints(run)], default=0)
    assert reached - saved <= SAVE_EVERY, (reached, saved)


def campaign(server, undisturbed, run, *, kills, seed):
    """Kill a run again and again, go on each time, and compare what comes out; returns the kills by kind."""
    config, reference = undisturbed.config, undisturbed.run
    chance = random.Random(seed)
    counts = {"KILL": 0, "TERM": 0, "INT": 0, "in a write": 0, "at a rename": 0}
    kinds = list(counts)
    finished = 0
    while sum(counts.values()) < kills:
        # Each kind in turn, so that few kills have all of them.
        kind = kinds[sum(counts.values()) % len(kinds)]
        fault = {}
        if kind == "in a write":
            fault = {"kill_in_write": chance.randint(1, WRITES // 2)}
        elif kind == "at a rename":
            fault = {"kill_at_rename": chance.randint(1, RENAMES // 2)}
        resume = ["--resume"] if (Path(run) / "config.yaml").exists() else []
        number = server.start("train", config, "--work-dir", run, *resume, **fault)
        if not fault:
            time.sleep(chance.uniform(0, undisturbed.seconds))
            os.kill(number, getattr(signal, f"SIG{kind}"))
        code = server.wait(number)
        if code == 0:  # it was faster; what it made must be right, and it begins anew
            finished += 1
            assert_equal_runs(run, reference)
            shutil.rmtree(run)
            assert finished <= 2 * kills + 10, "no run is slow enough to be killed"
            continue
        assert code in KILLED.get(kind, KILLED["KILL"]), (kind, code, server.output.read_text())
        assert "Traceback" not in server.output.read_text()
        counts[kind] += 1
        assert_little_lost(run)
    resume = ["--resume"] if (Path(run) / "config.yaml").exists() else []
    code, output = server.call("train", config, "--work-dir", run, *resume)
    assert code == 0, output
    assert_equal_runs(run, reference)
    return counts
