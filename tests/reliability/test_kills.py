"""Runs that are killed anywhere go on, and end as if nothing had been."""

import os
import signal
import time

import pytest
from harness import assert_equal_runs, campaign, lines

from dfad_seg.runs import checkpoints

SAVE_EVERY = 5
WRITES = (400, 14)
"""About what a run of 40 iterations makes: writes into checkpoints, files that are renamed."""


def test_a_few_kills(server, undisturbed, tmp_path):
    counts = campaign(
        server,
        undisturbed.config,
        tmp_path / "run",
        undisturbed.run,
        kills=5,
        seconds=undisturbed.seconds,
        seed=1,
        save_every=SAVE_EVERY,
        writes=WRITES,
    )
    assert min(counts.values()) == 1


def test_the_same_seed_in_another_process_gives_the_same_student(server, undisturbed, tmp_path):
    code, output = server.call("train_seg", undisturbed.config, "--work-dir", tmp_path / "run")
    assert code == 0, output
    assert_equal_runs(tmp_path / "run", undisturbed.run)


def test_resuming_from_an_older_checkpoint_forgets_the_later_ones(server, undisturbed, tmp_path):
    run = tmp_path / "run"
    command = ["train_seg", undisturbed.config, "--work-dir", run]
    assert server.call(*command, "--cfg-options", "keep_checkpoints=9")[0] == 0
    older = run / "checkpoints" / "iteration_00000015.pt"
    # Killed before it saved again: the next one must not take up a checkpoint whose metrics are gone.
    code, output = server.call(*command, "--resume", older, kill_in_write=5)
    assert code == -signal.SIGKILL, output
    assert [p.name for p in checkpoints(run)][-1] == older.name
    assert server.call(*command, "--resume")[0] == 0
    assert lines(run) == lines(undisturbed.run)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_kills(server, undisturbed, tmp_path):
    total, began = 0, time.monotonic()
    for seed in range(6):
        counts = campaign(
            server,
            undisturbed.config,
            tmp_path / f"run{seed}",
            undisturbed.run,
            kills=15,
            seconds=undisturbed.seconds,
            seed=seed,
            save_every=SAVE_EVERY,
            writes=WRITES,
        )
        total += sum(counts.values())
        print(f"\ncampaign {seed}: {counts}, {time.monotonic() - began:.0f} s", flush=True)
    print(f"kills survived: {total} on {os.uname().machine}")
    assert total >= 50
