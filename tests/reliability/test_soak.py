"""A long run of tiny steps: memory, open files and the disk stay as they are."""

import os
import time
from pathlib import Path

import pytest
from harness import lines, tiny_config

from dfad_seg.runs import checkpoints

ITERATIONS = 7000
"""Of three student steps each: two on fresh images and one on remembered ones."""


def resources(number):
    """Resident MiB and open files of a process; None once it has ended."""
    try:
        text = Path(f"/proc/{number}/status").read_text()
        files = len(os.listdir(f"/proc/{number}/fd"))
    except OSError:
        return None
    resident = [int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS:")]
    return (resident[0] / 1024, files) if resident else None


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".tmp") / 2**20


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_twenty_thousand_steps(server, tmp_path, tiny_scenes):
    evaluation = {"split": "val", "every": 100, "batch_size": 3, "num_workers": 0, "short_side": 16}
    config = tiny_config(
        tmp_path, tiny_scenes, iterations=ITERATIONS, evaluation=evaluation, save_every=50, log_every=20
    )
    run, began = tmp_path / "run", time.monotonic()
    number = server.start("train", config, "--work-dir", run)
    samples = []
    while (now := resources(number)) is not None:
        saved = checkpoints(run)
        step = int(saved[-1].stem.rpartition("_")[2]) if saved else 0
        disk = 0.0
        try:
            disk = size(run)
        except OSError:  # a file went while we looked
            continue
        samples.append((step, *now, disk, len(saved)))
        time.sleep(2)
    assert server.wait(number) == 0, server.output.read_text()
    early = next(sample for sample in samples if sample[0] >= ITERATIONS // 10)
    late = [sample for sample in samples if early[0] < sample[0] < ITERATIONS][-1]
    print(f"\n{time.monotonic() - began:.0f} s; iteration, MiB, open files, MiB on disk, checkpoints: {early} {late}")
    assert late[1] < early[1] + 20
    assert late[2] <= early[2] + 2
    assert max(sample[4] for sample in samples) <= 3  # two kept, and the newest before the oldest goes
    # The two logs grow, by what they are there to hold; nothing else does.
    logs = sum(path.stat().st_size for path in [run / "metrics.jsonl", *(run / "tensorboard").iterdir()]) / 2**20
    assert late[3] < early[3] + logs + 1
    records = lines(run)
    steps = [record["step"] for record in records if "train/student_loss" in record]
    assert steps == list(range(20, ITERATIONS + 1, 20))
