"""The tables, character by character."""

from __future__ import annotations

import pytest
import torch

from dfad_seg.common.errors import InputError
from dfad_seg.evaluation import format_comparison, format_summary, format_table, metrics_from_confusion

CLASSES = ["road", "car", "sky"]


def metrics(matrix, classes=CLASSES):
    return metrics_from_confusion(torch.tensor(matrix), classes)


TEACHER = metrics([[1500, 0, 0], [500, 1000, 0], [0, 0, 0]])
STUDENT = metrics([[1500, 0, 0], [1000, 500, 0], [0, 0, 0]])
NOISE = metrics([[1500, 0, 0], [1500, 0, 0], [0, 0, 0]])


def test_table():
    assert format_table(TEACHER).splitlines() == [
        "class    IoU     Acc  pixels",
        "----------------------------",
        "road   75.00  100.00   1,500",
        "car    66.67   66.67   1,500",
        "sky      nan     nan       0",
        "",
        "aAcc: 83.33  mIoU: 70.83  mAcc: 83.33",
    ]
    assert format_table(TEACHER).endswith(format_summary(TEACHER))


def test_comparison():
    columns = {"teacher": TEACHER, "student": STUDENT, "random noise": NOISE}
    assert format_comparison(columns).splitlines() == [
        "IoU   teacher  student  random noise  recovered",
        "-----------------------------------------------",
        "road    75.00    60.00         50.00     80.0 %",
        "car     66.67    33.33          0.00     50.0 %",
        "sky       nan      nan           nan          -",
        "-----------------------------------------------",
        "mIoU    70.83    46.67         25.00     65.9 %",
        "mAcc    83.33    66.67         50.00     80.0 %",
        "aAcc    83.33    66.67         50.00     80.0 %",
    ]


def test_a_class_that_the_teacher_never_finds_has_no_share():
    lines = format_comparison({"teacher": NOISE, "student": STUDENT}).splitlines()
    assert lines[3].split() == ["car", "0.00", "33.33", "-"]


def test_other_column_names():
    lines = format_comparison({"big": TEACHER, "small": STUDENT}, reference="big", student="small").splitlines()
    assert lines[2].split() == ["road", "75.00", "60.00", "80.0", "%"]


def test_markdown():
    odd = metrics([[1, 0], [0, 1]], ["a|b", "c"])
    assert format_comparison({"teacher": odd, "student": odd}, markdown=True).splitlines()[:4] == [
        "| IoU  | teacher | student | recovered |",
        "| ---- | ------: | ------: | --------: |",
        r"| a\|b |  100.00 |  100.00 |   100.0 % |",
        "| c    |  100.00 |  100.00 |   100.0 % |",
    ]
    assert format_table(TEACHER, markdown=True).splitlines() == [
        "| class |   IoU |    Acc | pixels |",
        "| ----- | ----: | -----: | -----: |",
        "| road  | 75.00 | 100.00 |  1,500 |",
        "| car   | 66.67 |  66.67 |  1,500 |",
        "| sky   |   nan |    nan |      0 |",
        "",
        "aAcc: 83.33  mIoU: 70.83  mAcc: 83.33",
    ]


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="unknown column 'teacher'"):
        format_comparison({"student": STUDENT})
    with pytest.raises(InputError, match="unknown column 'student'"):
        format_comparison({"teacher": TEACHER})
    other = metrics([[1, 0], [0, 1]], ["road", "car"])
    with pytest.raises(InputError, match="'student' was evaluated on the classes road, car, but 'teacher'"):
        format_comparison({"teacher": TEACHER, "student": other})
