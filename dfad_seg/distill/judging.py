"""What the record of a run says about its health, in plain words; the thresholds are those of `health`.

Each rule looks at means over the last tenth of the log lines (at least three), so that one odd line says nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from dfad_seg.distill.health import (
    FEWEST_LINES,
    FORGOTTEN_AGREEMENT,
    GROWN_LOSS,
    LOST_SCORE,
    ONE_CLASS,
    SATURATED_AGREEMENT,
)

Record = Mapping[str, float | None]


def judge_records(records: Sequence[Record], score: str | None = None) -> list[str] | None:
    """Sentences on what looks unhealthy; None where there are too few lines to tell.

    Args:
        records: log lines with `step` and means by name, such as `train/student_loss`.
        score: the name of the score on the way, such as `val/mIoU`.
    """
    losses = _values(records, "train/student_loss")
    if len(losses) < FEWEST_LINES:
        return None
    found = [_grown(losses), _saturated(records), _forgetting(records), _fallen(records, score) if score else None]
    return [sentence for sentence in found if sentence]


def judge_average(averaged: float, last: float) -> str | None:
    """Whether the averaged weights score worse (mIoU) than those of the last step."""
    if averaged >= last:
        return None
    return (
        f"The averaged weights, which are kept, score worse than those of the last step: mIoU {100 * averaged:.1f} % "
        f"and {100 * last:.1f} %. A smaller ema_decay, or none, would have kept the better ones."
    )


def judge_predictions(predicted: float, truth: float, student: str = "student") -> str | None:
    """Whether predictions are (nearly) one class: the largest share of the pixels in predictions and in the truth."""
    if 1 - predicted >= ONE_CLASS * (1 - truth):
        return None
    return (
        f"The {student} predicts (nearly) one class everywhere: {100 * predicted:.1f} % of the evaluated pixels, of "
        f"which the largest class has {100 * truth:.1f} %. It has learnt nothing, or its averaged weights are still "
        "those of its start."
    )


def _grown(losses: Sequence[float]) -> str | None:
    window = _window(losses)
    if len(losses) < 2 * FEWEST_LINES:
        return None
    means = [statistics.fmean(losses[i : i + window]) for i in range(len(losses) - window + 1)]
    lowest = min(means)
    if lowest <= 0 or means[-1] < GROWN_LOSS * lowest:
        return None
    return (
        f"The student's loss has grown to {means[-1] / lowest:.1f} times its lowest level ({lowest:.3g} to "
        f"{means[-1]:.3g}). The generator outruns the student: lower its learning rate, raise student_steps, or let "
        "both learning rates decay."
    )


def _saturated(records: Sequence[Record]) -> str | None:
    agreement = _last_mean(records, "train/student_agreement")
    if agreement is None or agreement < SATURATED_AGREEMENT:
        return None
    return (
        f"Student and teacher agree on {100 * agreement:.1f} % of the generated pixels: there is next to nothing left "
        "to learn from these images, however the student does on real ones. Harder or more varied images are needed."
    )


def _forgetting(records: Sequence[Record]) -> str | None:
    fresh = _last_mean(records, "train/student_agreement")
    remembered = _last_mean(records, "train/replay_agreement")
    if fresh is None or remembered is None or remembered >= fresh - FORGOTTEN_AGREEMENT:
        return None
    return (
        f"The student forgets: it agrees with the teacher on {100 * remembered:.1f} % of the pixels of remembered "
        f"images and on {100 * fresh:.1f} % of fresh ones. More steps on remembered images, or more of them, help."
    )


def _fallen(records: Sequence[Record], score: str) -> str | None:
    points = [(value, record["step"]) for record in records if (value := record.get(score)) is not None]
    best, step = max(points, key=lambda point: point[0], default=(0.0, 0))
    if not points or points[-1][0] >= LOST_SCORE * best:
        return None
    return (
        f"The score has fallen: {score} is {100 * points[-1][0]:.1f} % now and was {100 * best:.1f} % at iteration "
        f"{step}. The last weights count, not the best; learning rates that decay and ema_decay steady the end."
    )


def _values(records: Sequence[Record], key: str) -> list[float]:
    return [value for record in records if (value := record.get(key)) is not None]


def _last_mean(records: Sequence[Record], key: str) -> float | None:
    values = _values(records, key)
    return statistics.fmean(values[-_window(values) :]) if len(values) >= FEWEST_LINES else None


def _window(values: Sequence[float]) -> int:
    return max(3, len(values) // 10)
