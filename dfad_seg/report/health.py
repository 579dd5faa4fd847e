"""What a run's metrics say about its health, in plain words.

Each rule looks at means over the last tenth of the log lines (at least three), so that one odd line says nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

COLLAPSED_ENTROPY = 0.2
"""Normalised entropy of the teacher's answers on generated images; 1 is all classes alike, 0 a single class."""
SATURATED_AGREEMENT = 0.99
FORGOTTEN_AGREEMENT = 0.03
"""By how much the agreement on remembered images may stay behind that on fresh ones."""
GROWN_LOSS = 3.0
"""Times its lowest level, at which a student's loss has run away."""
LOST_SCORE = 0.8
"""Share of the best score on the way, below which the last one has fallen."""
FEWEST_LINES = 5

Record = Mapping[str, Any]


def health_warnings(records: Sequence[Record], events: Sequence[Record] = ()) -> list[str]:
    """Sentences on what looks unhealthy; none where nothing does.

    Args:
        records: the lines of `metrics.jsonl` that measure something. Keys that begin with `health/` are signs of the
            training itself; zero, false and null mean that nothing happened.
        events: its other lines, with `event` and `cause`.
    """
    checks: tuple[Callable[[Sequence[Record]], str | None], ...] = (
        _not_finite,
        _grown_loss,
        _collapse,
        _saturation,
        _forgetting,
        _fallen_score,
    )
    found = [sentence for check in checks if (sentence := check(records)) is not None]
    return [*found, *_signs(records), *_events(events)]


def can_judge(records: Sequence[Record]) -> bool:
    """Whether there are enough lines for the rules."""
    return sum("train/student_loss" in record for record in records) >= FEWEST_LINES


def _not_finite(records: Sequence[Record]) -> str | None:
    for record in records:
        bad = sorted(key for key, value in record.items() if key.endswith("loss") and value is None)
        if bad:
            return (
                f"The run diverged: {', '.join(bad)} was no finite number at iteration {record.get('step')}. "
                "Lower the learning rates or set clip_norm, and resume from the last checkpoint."
            )
    return None


def _grown_loss(records: Sequence[Record]) -> str | None:
    values = _values(records, "train/student_loss")
    window = _window(values)
    if len(values) < 2 * FEWEST_LINES:
        return None
    means = [statistics.fmean(values[i : i + window]) for i in range(len(values) - window + 1)]
    lowest = min(means)
    if lowest <= 0 or means[-1] < GROWN_LOSS * lowest:
        return None
    return (
        f"The student's loss has grown to {means[-1] / lowest:.1f} times its lowest level ({lowest:.3g} to "
        f"{means[-1]:.3g}). The generator outruns the student: lower its learning rate, raise student_steps, or let "
        "both learning rates decay."
    )


def _collapse(records: Sequence[Record]) -> str | None:
    entropy = _last_mean(records, "train/student_class_entropy")
    if entropy is None or entropy >= COLLAPSED_ENTROPY:
        return None
    largest = _last_mean(records, "train/student_largest_class")
    share = "" if largest is None else f"; the most frequent class has {100 * largest:.0f} % of the pixels"
    return (
        f"The generator has collapsed: the teacher answers nearly the same everywhere on its images (class entropy "
        f"{entropy:.3f} of 1{share}). A layout generator, class_balance or batch_norm_prior work against it."
    )


def _saturation(records: Sequence[Record]) -> str | None:
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
        f"images and on {100 * fresh:.1f} % of fresh ones. More replay_steps or a larger replay_size help."
    )


def _fallen_score(records: Sequence[Record]) -> str | None:
    for key in sorted({key for record in records for key in record if key.endswith("/mIoU")}):
        points = [(record["step"], record[key]) for record in records if _finite(record.get(key))]
        if len(points) < 2:
            continue
        step, best = max(points, key=lambda point: point[1])
        last = points[-1][1]
        if best > 0 and last < LOST_SCORE * best:
            return (
                f"The score has fallen: {key} is {100 * last:.1f} % now and was {100 * best:.1f} % at iteration "
                f"{step}. The last weights count, not the best; learning rates that decay and ema_decay steady the end."
            )
    return None


def _signs(records: Sequence[Record]) -> list[str]:
    seen: dict[str, list[tuple[Any, Any]]] = {}
    for record in records:
        for key, value in record.items():
            if key.startswith("health/") and value:
                seen.setdefault(key.removeprefix("health/"), []).append((record.get("step"), value))
    return [_told(name, found) for name, found in seen.items()]


def _events(events: Sequence[Record]) -> list[str]:
    seen: dict[str, list[tuple[Any, Any]]] = {}
    for event in events:
        at = event.get("found_at", event.get("step"))
        seen.setdefault(str(event.get("event")), []).append((at, event.get("cause", 1)))
    return [_told(name, found) for name, found in seen.items()]


def _told(name: str, found: Sequence[tuple[Any, Any]]) -> str:
    """One sentence for all times that something was noticed: (iteration, cause or number) each."""
    times = f"at iteration {found[0][0]}"
    if len(found) > 1:
        times = f"{len(found)} times, from iteration {found[0][0]} to {found[-1][0]}"
    last = found[-1][1]
    cause = (
        f": {last.rstrip('.')}" if isinstance(last, str) else f" (value {last:.4g})" if last not in (1, True) else ""
    )
    return f"Noted during training: {name.replace('_', ' ').replace('/', ': ')}, {times}{cause}."


def _values(records: Sequence[Record], key: str) -> list[float]:
    return [float(record[key]) for record in records if _finite(record.get(key))]


def _last_mean(records: Sequence[Record], key: str) -> float | None:
    values = _values(records, key)
    return statistics.fmean(values[-_window(values) :]) if len(values) >= FEWEST_LINES else None


def _window(values: Sequence[float]) -> int:
    return max(3, len(values) // 10)


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
