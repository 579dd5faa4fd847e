"""What is printed and written: numbers by hand, and JSON and CSV that other programs read."""

import csv
import json
import math

import pytest
import torch

from dfad_seg.common.files import write_csv
from dfad_seg.evaluation import Comparison, Evaluation, metrics_from_confusion
from dfad_seg.evaluation.bootstrap import Difference, Interval

MATRIX = torch.tensor([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
METRICS = metrics_from_confusion(MATRIX, ("road", "sky", "tree"), ignored=7)
INTERVAL = Interval(0.4, 0.7, 50)
FULL = Evaluation(
    METRICS,
    {"subset mIoU": 0.5, "boundary mIoU": 0.375, "ECE": 0.125, "agreement": 0.75},
    {"boundary IoU": (0.5, 0.25, math.nan), "class agreement": (1.0, 0.5, math.nan)},
    {"mIoU": INTERVAL, "subset mIoU": Interval(0.3, 0.6, 50)},
    ["sky"],
)


def read_back(tmp_path, result, *keys):
    """The values of the written CSV, by what they are of."""
    write_csv(tmp_path / "a.csv", result.to_rows())
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        return {tuple(row[key] for key in keys): row["value"] for row in csv.DictReader(file)}


def test_dice_and_frequency_weighted_iou_by_hand():
    assert METRICS.dice[:2] == pytest.approx((12 / 15, 6 / 9)) and math.isnan(METRICS.dice[2])
    assert METRICS.mDice == pytest.approx((12 / 15 + 6 / 9) / 2)
    assert METRICS.fwIoU == pytest.approx((8 * 6 / 9 + 4 * 3 / 6) / 12)
    # A class that is predicted and never true weighs nothing.
    spurious = metrics_from_confusion(torch.tensor([[3, 1], [0, 0]]), ("a", "b"))
    assert spurious.fwIoU == pytest.approx(3 / 4) and spurious.mDice == pytest.approx((6 / 7 + 0) / 2)


def test_the_report_has_every_number():
    text = FULL.report()
    lines = text.splitlines()
    assert lines[0].split() == ["class", "IoU", "Acc", "Dice", "boundary", "IoU", "class", "agreement", "pixels"]
    assert lines[2].split() == ["road", "66.67", "75.00", "80.00", "50.00", "100.00", "8"]
    assert "aAcc: 75.00  mIoU: 58.33  mAcc: 75.00  mDice: 73.33  fwIoU: 61.11" in text
    for part in ("subset mIoU: 50.00", "boundary mIoU: 37.50", "ECE: 12.50", "agreement: 75.00", "subset: sky"):
        assert part in lines
    assert "mIoU, 95 % interval 40.00 … 70.00 (bootstrap over images, n = 50)" in lines


def test_json_and_csv_have_every_number(tmp_path):
    record = json.loads(json.dumps(FULL.to_dict(), allow_nan=False))
    assert record["IoU"] == [pytest.approx(6 / 9), 0.5, None] and record["mIoU"] == METRICS.mIoU
    assert record["support"] == [8, 4, 0] and record["ignored"] == 7
    assert record["boundary_IoU"] == [0.5, 0.25, None] and record["boundary_mIoU"] == 0.375
    assert record["mIoU_interval"]["high"] == 0.7 and record["class_agreement"] == [1.0, 0.5, None]
    assert (record["subset"], record["subset_mIoU"], record["subset_mIoU_interval"]["low"]) == (["sky"], 0.5, 0.3)
    rows = read_back(tmp_path, FULL, "metric", "class")
    assert [float(rows[name, ""]) for name in ("mIoU", "fwIoU", "ECE")] == [METRICS.mIoU, METRICS.fwIoU, record["ECE"]]
    assert float(rows["IoU", "road"]) == METRICS.iou[0] and rows["IoU", "tree"] == "" and rows["pixels", "road"] == "8"
    assert (rows["mIoU low", ""], rows["subset mIoU high", ""]) == ("0.4", "0.6")


def test_a_comparison(tmp_path):
    other = metrics_from_confusion(torch.tensor([[7, 1, 0], [0, 4, 0], [0, 0, 0]]), METRICS.classes)
    change = Difference(other.mIoU - METRICS.mIoU, Interval(-0.01, 0.5, 50), 0.0625)
    old = Evaluation(METRICS, intervals={"mIoU": INTERVAL})
    comparison = Comparison({"old": old, "new": Evaluation(other)}, {"new": change})
    text = comparison.report()
    new = next(line for line in text.splitlines() if line.startswith("new"))
    assert "+25.42" in new and "-1.00 … +50.00" in new and new.endswith("0.0625")
    assert "paired bootstrap over images, 50 resamples" in text
    record = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert record["compared_with"] == "old" and list(record["models"]) == ["old", "new"]
    assert record["models"]["new"]["difference"]["p_value"] == 0.0625 and "difference" not in record["models"]["old"]
    rows = read_back(tmp_path, comparison, "model", "metric", "class")
    assert rows["new", "p", ""] == "0.0625" and rows["new", "difference low", ""] == "-0.01"
    assert float(rows["old", "mIoU", ""]) == METRICS.mIoU and ("old", "p", "") not in rows
