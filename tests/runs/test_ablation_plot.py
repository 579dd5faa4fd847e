"""The plot of an ablation is drawn from its rows."""

import cv2
import numpy as np
import pytest

from dfad_seg.runs.ablation import ablation_plot

PARTS = "replay_size=0@replay_steps=0@final_replay_steps=null@replay_answers=anew@student_steps=5"


@pytest.mark.parametrize("setting", ["ema_decay=null", PARTS, "generator=" + "{type: dcgan, width: 64} " * 5])
def test_bars_keep_their_room_beside_long_names(tmp_path, setting):
    rows = [
        {"setting": name, "split": "val", "miou": values} for name, values in (("base", [0.4, 0.5]), (setting, [0.42]))
    ]
    ablation_plot(tmp_path / "plot.png", rows)
    blue, _, red = np.moveaxis(cv2.imread(str(tmp_path / "plot.png")).astype(int), 2, 0)
    bar = (blue - red > 60).any(axis=0)  # columns of the second bar; the base's is grey
    assert bar.mean() > 0.5
