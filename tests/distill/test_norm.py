"""BatchNorm modes."""

import pytest
import torch
from torch import nn

from dfad_seg.distill import batch_norm_mode


def test_modes_normalise_by_what_they_say():
    norm = nn.BatchNorm2d(2)
    norm.running_mean += 5
    x = torch.randn(4, 2, 3, 3)
    by_batch = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, correction=0) + norm.eps).sqrt()
    by_running = (x - 5) / (1 + norm.eps) ** 0.5
    for mode, expected in (("batch", by_batch), ("running", by_running), ("update", by_batch)):
        with batch_norm_mode(norm, mode):
            torch.testing.assert_close(norm(x), expected)
        assert norm.training and norm.track_running_stats
    assert norm.num_batches_tracked == 1


def test_modes_are_undone_after_an_error_and_leave_frozen_layers_alone():
    network = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2).eval())
    with pytest.raises(RuntimeError, match="boom"), batch_norm_mode(network, "running"):
        assert not network[0].training
        raise RuntimeError("boom")
    assert network[0].training and not network[1].training
