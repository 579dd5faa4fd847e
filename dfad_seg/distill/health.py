"""Whether training is sound: what ends it at once, and what the record of a run says, in plain words.

The rules look at means over the last tenth of the log lines (at least three), so that one odd line says nothing.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

MAX_LOGIT = 1e4
"""Bound on the size of the student's logits, as the mean of the steps' largest."""
MIN_ENTROPY = 0.02
"""Entropy of the teacher's classes on generated images, as a share of the greatest: below, the generator collapsed."""
UNDECIDED_SHARE = 0.98
"""Where the teacher sees one class in so many pixels, nobody can tell a dead student from a good one."""
SATURATED_AGREEMENT = 0.99
"""Agreement on generated images at which they teach nothing more."""
FORGOTTEN_AGREEMENT = 0.03
"""By how much the agreement on remembered images may stay behind that on fresh ones."""
GROWN_LOSS = 3.0
"""Times its lowest level, at which a student's loss has run away."""
LOST_SCORE = 0.8
"""Share of the best score on the way, below which the last one has fallen."""
ONE_CLASS = 0.1
"""Share of the pixels of all classes but the largest that predictions must reach; below, they are one class."""
FEWEST_LINES = 5
"""Of the log, before anything is said."""

Record = Mapping[str, float | None]


@torch.no_grad()
def all_finite(networks: Iterable[nn.Module], losses: Iterable[Tensor] = ()) -> Tensor:
    """A flag on the device: 1 where every weight, running statistic and loss is finite, else 0."""
    tensors = [
        tensor
        for network in networks
        for tensor in (*network.parameters(), *network.buffers())
        if tensor.is_floating_point() and tensor.numel()
    ]
    # The largest absolute value, which passes a NaN on.
    peak = get_total_norm(tensors, norm_type=math.inf)
    flags = [torch.isfinite(peak), *(torch.isfinite(loss).all() for loss in losses)]
    return torch.stack(flags).all().float()


def judge_records(records: Sequence[Record], score: str | None = None) -> list[str] | None:
    """Sentences on what looks unhealthy; None where there are too few lines to tell.

    Args:
        records: log lines with `step` and means by name, such as `train/student_loss`.
        score: the name of the score on the way, such as `val/mIoU`.
    """
    losses = _values(records, "student_loss")
    if len(losses) < FEWEST_LINES:
        return None
    names = ("student_agreement", "replay_agreement", "student_class_entropy", "student_largest_class")
    agreement, remembered, entropy, largest = (_last_mean(records, name) for name in names)
    peak, has_generator = _last_mean(records, "student_logit_peak"), bool(_values(records, "generator_loss"))
    found = [_grown(losses), _fallen(records, score) if score else None]
    if peak is not None and peak > MAX_LOGIT:
        found.append(f"The student's logits have grown to {peak:.3g}. Lower its learning rate, or set clip_norm.")
    if has_generator and entropy is not None and entropy < MIN_ENTROPY:
        found.append(
            f"The generator has collapsed: the teacher sees nearly one class in all generated images (entropy "
            f"{entropy:.3g} of the greatest). A layout generator or the prior batch_norm_prior helps."
        )
    if agreement is not None and largest is not None and agreement <= largest < UNDECIDED_SHARE:
        found.append(
            f"The student is dead: it agrees with the teacher on {100 * agreement:.1f} % of the generated pixels, and "
            f"a constant prediction would on {100 * largest:.1f} %. Train longer, or with another learning rate."
        )
    if agreement is not None and agreement >= SATURATED_AGREEMENT:
        found.append(
            f"Student and teacher agree on {100 * agreement:.1f} % of the generated pixels: harder or more varied "
            "images are needed, as these have next to nothing left to teach, however the student does on real ones."
        )
    if agreement is not None and remembered is not None and remembered < agreement - FORGOTTEN_AGREEMENT:
        found.append(
            f"The student forgets: it agrees with the teacher on {100 * remembered:.1f} % of the pixels of remembered "
            f"images and on {100 * agreement:.1f} % of fresh ones. More steps on them, or more of them, help."
        )
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


def _fallen(records: Sequence[Record], score: str) -> str | None:
    points = [(value, record["step"]) for record in records if (value := record.get(score)) is not None]
    best, step = max(points, key=lambda point: point[0], default=(0.0, 0))
    if not points or points[-1][0] >= LOST_SCORE * best:
        return None
    return (
        f"The score has fallen: {score} is {100 * points[-1][0]:.1f} % now and was {100 * best:.1f} % at iteration "
        f"{step}. The last weights count, not the best; learning rates that decay and ema_decay steady the end."
    )


def _values(records: Sequence[Record], name: str) -> list[float]:
    return [value for record in records if (value := record.get(f"train/{name}")) is not None]


def _last_mean(records: Sequence[Record], name: str) -> float | None:
    values = _values(records, name)
    return statistics.fmean(values[-_window(values) :]) if len(values) >= FEWEST_LINES else None


def _window(values: Sequence[float]) -> int:
    return max(3, len(values) // 10)
