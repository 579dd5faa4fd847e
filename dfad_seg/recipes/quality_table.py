"""What agreement on generated images has meant: students of every quality, scored with labels and without.

Measured by `python benchmarks/quality.py RUN ...` on finished runs: students as they were cut, of checkpoints, and with
noise on their weights. Pairs of (mIoU of agreement with the teacher, share of the teacher's mIoU on labelled images).
"""

POINTS = (
    *((0.017, 0.046), (0.019, 0.065), (0.037, 0.054), (0.071, 0.217), (0.082, 0.373), (0.109, 0.648), (0.225, 0.995)),
    *((0.597, 0.989), (0.604, 0.974), (0.612, 0.972), (0.639, 1.054), (0.647, 1.046), (0.654, 1.048)),
)
"""CamVid's teacher, a DeepLabV3+ on a MobileNetV2; students cut to 33 % and 67 % of its multiply-accumulates."""
HELD_OUT = ((0.643, 0.895), (0.653, 0.896), (0.673, 0.901))
"""The street scenes' teacher, and students of another architecture that began with random weights."""
