"""The game on two processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.slow
def test_two_processes_keep_equal_weights_draw_different_noise_and_resume(tmp_path):
    script = Path(__file__).with_name("two_processes.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for player in ("student", "generator", "connectors"):
        for name in ranks[0][player]:
            assert torch.equal(ranks[0][player][name], ranks[1][player][name]), (player, name)
    assert not torch.equal(ranks[0]["noise"], ranks[1]["noise"])
    # Each rank goes on with its own replay memory, of which the one file of rank 0 holds all.
    for name, value in ranks[0]["student"].items():
        assert torch.equal(ranks[0]["resumed"]["student"][name], value), name
    # The same mathematics: without BatchNorm, two ranks of batch 4 take the step of one process with batch 8.
    for name, value in ranks[0]["one"].items():
        torch.testing.assert_close(ranks[0]["two"][name], value, rtol=0, atol=1e-6)
