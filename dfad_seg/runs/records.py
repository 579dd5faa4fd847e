"""What the files of a run hold: the one declaration of `summary.json` and `provenance.json`."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from dfad_seg.common.values import Count, Fraction, Size, Weight, options

Weights = Literal["start", "last", "ema"]
"""Of a network: before any training, after the last step, or their moving average."""


@options
class Cost:
    """What a network is and needs for one image of the summary's `size`."""

    name: str = ""
    parameters: Count
    macs: Count | None = None
    latency_s: Weight | None = None
    """Seconds in fp32: the fastest of several passes."""
    scatter: Weight | None = None
    """By what share the median pass was slower."""


@options
class Score:
    """The metrics of one network on one split, as fractions."""

    network: Literal["teacher", "student"]
    weights: Weights = "last"
    split: str
    classes: tuple[str, ...]
    mIoU: Fraction
    """Mean over the classes that occur in truth or prediction."""
    mAcc: Fraction | None = None
    """Mean accuracy of the classes that occur in the truth."""
    aAcc: Fraction | None = None
    IoU: tuple[Fraction | None, ...]
    """By class; none: it occurs nowhere."""
    Acc: tuple[Fraction | None, ...] = ()
    support: tuple[Count, ...] = ()
    """Pixels of each class in the truth."""
    digest: str = ""
    """Of the weights."""
    command: str = ""

    def __post_init__(self) -> None:
        known = [self.IoU, *(values for values in (self.Acc, self.support) if values)]
        if {len(values) for values in known} != {len(self.classes)}:
            raise ValueError("classes, IoU, Acc and support must be equally many")

    @classmethod
    def measured(cls, found: Mapping[str, Any], **which: Any) -> "Score":
        """The score that an evaluation found, by `SegmentationMetrics.to_dict`; `which` are the other fields."""
        values: dict[str, Any] = {name: tuple(found[name]) for name in ("classes", "IoU", "Acc", "support")}
        values |= {name: found[name] for name in ("mIoU", "mAcc", "aAcc")}
        return cls(**which, **values)

    @property
    def constant(self) -> float | None:
        """The mIoU of the best constant prediction: its class has an IoU, all others that occur have 0."""
        present = [pixels for pixels in self.support if pixels]
        return max(present) / sum(present) / len(present) if present else None

    @property
    def by_chance(self) -> float | None:
        """The mIoU of random predictions with the truth's class shares p: p / (2 − p) of each class."""
        shares = [pixels / sum(self.support) for pixels in self.support if pixels]
        return sum(p / (2 - p) for p in shares) / len(shares) if shares else None

    @property
    def largest_prediction(self) -> float | None:
        """The share of the pixels for which the most frequent prediction is given, as far as IoU and Acc tell it."""
        total, found = sum(self.support), []
        for iou, accuracy, truth in zip(self.IoU, self.Acc, self.support, strict=False):
            if iou and accuracy is not None:
                hits = accuracy * truth  # IoU = hits / (truth + predicted − hits)
                found.append((hits / iou - truth + hits) / total)
        return max(found, default=None)


@options
class Estimate:
    """What share of its teacher's mIoU a student keeps, as far as that can be told without labels."""

    kept: Weight | None = None
    """The estimate; none where the images do not support one."""
    low: Weight | None = None
    """Nine in ten of those that were calibrated on lie above."""
    high: Weight | None = None
    """Likewise below."""
    reason: str = ""
    """Why there is none."""


@options
class Example:
    """One evaluated image, drawn."""

    kind: Literal["worst", "best"]
    """By its own mIoU."""
    name: str
    file: str
    miou: Fraction
    """Of the trained network on this image."""
    teacher_miou: Fraction | None = None


@options
class Summary:
    """`summary.json`: what a run is, costs and reaches."""

    role: Literal["teacher", "student"]
    """Which network is trained."""
    iterations: Count
    selected: Literal["last", "ema"] = "last"
    """Which weights are kept as the result."""
    split: str | None = None
    size: Size | None = None
    """Of one image, for the costs."""
    device: str = ""
    costs: dict[Literal["teacher", "student"], Cost] = field(default_factory=dict)
    scores: tuple[Score, ...] = ()
    """At most one per network, weights and split."""
    agreement: tuple[Score, ...] = ()
    """Scores of the student with its teacher's predictions as the truth, on images that it was not trained on."""
    estimate: Estimate | None = None
    """From the agreement on generated images."""
    examples: tuple[Example, ...] = ()
    seen: dict[str, Fraction | None] = field(default_factory=dict)
    """By class, the share of its pixels in generated layouts where the teacher sees it."""


@options
class Teacher:
    """Which teacher it was."""

    checkpoint: str | None = None
    file_sha256: str | None = None
    state_sha256: str | None = None
    parameters: Count


@options
class Use:
    """Real images that were read."""

    purpose: Literal["training", "evaluation"]
    split: str
    dataset: str = "images"
    root: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    listing: str = ""
    """A digest of the names of the images."""


@options
class Resumption:
    """What was another when the run was taken up again."""

    iteration: Count
    started: str
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """By key of the config or fact of the machine: [before, now]."""
    command: str = ""


@options
class Provenance:
    """`provenance.json`: where a run's result comes from."""

    command: str = ""
    method: str
    seed: int
    started: str
    teacher: Teacher | None = None
    trained_from: dict[str, str] = field(default_factory=dict)
    """Where the trained network's weights come from, as far as they are not random, with hashes."""
    trained_parameters: Count
    trained_steps: Count
    """Its optimiser steps in a whole run."""
    batch_norm_prior_layers: tuple[str, ...] | None = None
    """The teacher's layers that the prior looks at."""
    real_images: tuple[Use, ...]
    real_images_used_for_training: bool
    device: str
    processes: Count = 1
    precision: str
    torch_threads: Count = 1
    python: str = ""
    packages: dict[str, str | None] = field(default_factory=dict)
    """Versions of those that results depend on."""
    dfad_seg: str | None = None
    git_commit: str | None = None
    """Of its source, where it runs from one."""
    resumed: tuple[Resumption, ...] = ()
    """Each time that something was another."""
