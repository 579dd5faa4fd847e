"""Denormal numbers count as zero while a network is evaluated, in all threads, and not longer."""

import subprocess
import sys

import pytest
import torch

from dfad_seg.common.speed import denormals_as_zero
from dfad_seg.evaluation import evaluate_miou

THREADS = """
import torch
from dfad_seg.common.modules import denormals_as_zero
torch.set_num_threads(2)
x = torch.full((2**20,), 2.0**-130)
zeros = lambda: ((x * 0.5) == 0).float().mean().item()
found = [zeros()]
for _ in range(2):
    with denormals_as_zero():
        found.append(zeros())
        with denormals_as_zero():
            found.append(zeros())
        found.append(zeros())
    found.append(zeros())
try:
    with denormals_as_zero():
        raise ValueError
except ValueError:
    found.append(zeros())
print(found == [0, 1, 1, 1, 0, 1, 1, 1, 0, 0], found)
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot flush denormals")
def test_the_threads_that_torch_began_before_flush_too_and_are_restored():
    result = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=120)
    assert result.stdout.startswith("True"), result.stdout + result.stderr


class Tiny(torch.nn.Module):
    """Class 1 only where a product of denormal weights is above zero."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([2.0**-128]))

    def forward(self, images):
        product = images[:, :1] * self.weight * 2.0**120
        return torch.cat([torch.zeros_like(product), product], dim=1)


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot flush denormals")
def test_an_evaluation_takes_denormal_weights_for_zero():
    torch.set_flush_denormal(False)  # whatever ran in this process before
    network = Tiny()
    batch = {"image": torch.ones(1, 3, 4, 4), "mask": torch.zeros(1, 4, 4, dtype=torch.uint8)}
    assert network(batch["image"]).argmax(1).sum() == 16
    assert evaluate_miou(network, [batch], num_classes=2).aAcc == 1
    assert network(batch["image"]).argmax(1).sum() == 16  # for the caller they are what they were
    with denormals_as_zero():
        assert network(batch["image"]).argmax(1).sum() == 0
