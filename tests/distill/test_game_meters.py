"""What is logged between two log points, against numpy."""

import numpy as np
import pytest
import torch
from scipy import stats

from dfad_seg.distill.meters import Meters


def test_means_and_class_shares():
    meters = Meters()
    logits = [torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    for i, batch in enumerate(logits):
        meters.add("train/", {"loss": torch.tensor(float(i)), "peak": torch.tensor(2.0 * i)})
        meters.add_classes("train/student_", batch)
    again = Meters()
    again.load_state_dict(meters.state_dict(), torch.device("cpu"))
    found = meters.flush(lambda value: value)
    assert found == again.flush(lambda value: value) and meters.flush(lambda value: value) == {}
    shares = np.bincount(torch.cat(logits).argmax(1).flatten().numpy(), minlength=4) / 90
    assert (found["train/loss"], found["train/peak"]) == (1, 2)
    assert found["train/student_largest_class"] == pytest.approx(shares.max())
    assert found["train/student_class_entropy"] == pytest.approx(stats.entropy(shares) / np.log(4))
    one_class = torch.zeros(1, 4, 2, 2)
    one_class[:, 3] = 1
    meters.add_classes("x/", one_class)
    assert meters.flush(lambda value: value)["x/class_entropy"] == pytest.approx(0, abs=1e-6)
