"""Runs that are killed anywhere go on, and end as if nothing had been."""

import os
import signal
import time

import pytest
from harness import campaign, lines, weights

from dfad_seg.runs import checkpoints


def test_a_few_kills(server, undisturbed, tmp_path):
    counts = campaign(server, undisturbed, tmp_path / "run", kills=5, seed=1)
    assert min(counts.values()) == 1


def test_another_process_makes_the_same_and_may_go_back(server, undisturbed, tmp_path):
    run = tmp_path / "run"
    command = ["train", undisturbed.config, "--work-dir", run]
    code, output = server.call(*command, "--cfg-options", "keep_checkpoints=9")
    assert code == 0, output
    assert lines(run) == lines(undisturbed.run) and weights(run) == weights(undisturbed.run)
    # Resumed from an older checkpoint and killed before it saved again: the next part must not take up a checkpoint
    # whose metrics are gone.
    older = run / "checkpoints" / "iteration_00000020.pt"
    code, output = server.call(*command, "--resume", older, kill_in_write=5)
    assert code == -signal.SIGKILL, output
    assert [path.name for path in checkpoints(run)][-1] == older.name
    assert server.call(*command, "--resume")[0] == 0
    assert lines(run) == lines(undisturbed.run)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_kills(server, undisturbed, tmp_path):
    total, began = 0, time.monotonic()
    for seed in range(5):
        counts = campaign(server, undisturbed, tmp_path / f"run{seed}", kills=15, seed=seed)
        total += sum(counts.values())
        print(f"\ncampaign {seed}: {counts}, {time.monotonic() - began:.0f} s", flush=True)
    print(f"kills survived: {total} on {os.uname().machine}")
    assert total >= 50
