"""The papers' classification form, in seconds: a small CNN distilled without data on scikit-learn's bundled digits.

The same config keys, steps and loop as for segmentation, with logits (N, C). Real digits are read twice: to train the
teacher, and to score the networks at the end; nothing is chosen by their score.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_json
from dfad_seg.config import Config, SegmentorConfig, load_config
from dfad_seg.distill import Hooks, supervised_step
from dfad_seg.distill.seeds import derived_seed
from dfad_seg.objectives import label_loss
from dfad_seg.recipes import assemble, meta_info, run_method
from dfad_seg.recipes.precision import resolve_precision
from dfad_seg.segmentors.factory_source import build_factory

SPLITS = ("train", "val", "test")
TEACHER_EPOCHS = 15


class Digits(NamedTuple):
    """One part of the digits."""

    images: Tensor
    """(N, 3, H, W) in [0, 1], grey, enlarged from 8×8."""
    labels: Tensor
    """(N,)."""


class LeNet(nn.Module):
    """Two convolutions and two linear layers, without BatchNorm, like the papers' networks for MNIST.

    RGB images (N, 3, 16, 16) in [0, 1] to logits (N, 10).

    Args:
        width: channels of the first convolution; the second has twice as many, the hidden layer eight times.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32 * width, 8 * width), nn.ReLU(), nn.Linear(8 * width, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(2 * images - 1))


def load_digits(split: str, size: tuple[int, int]) -> Digits:
    """A part of the 1,797 digits: 60 % train, 20 % val, 20 % test, with equal class shares, always the same.

    Args:
        split: train, val or test.
        size: (H, W) to which they are enlarged, bilinearly.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as bundled
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise InputError("the digits come with scikit-learn. Install it: pip install scikit-learn.") from None
    pixels, labels = bundled(return_X_y=True)
    first, rest, first_labels, rest_labels = train_test_split(
        pixels, labels, train_size=0.6, stratify=labels, random_state=0
    )
    val, test, val_labels, test_labels = train_test_split(
        rest, rest_labels, train_size=0.5, stratify=rest_labels, random_state=0
    )
    chosen, targets = {
        "train": (first, first_labels),
        "val": (val, val_labels),
        "test": (test, test_labels),
    }[split]
    images = torch.tensor(chosen, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    images = F.interpolate(images, size, mode="bilinear", align_corners=False).expand(-1, 3, -1, -1)
    return Digits(images.contiguous(), torch.tensor(targets, dtype=torch.long))


def accuracy(network: nn.Module, digits: Digits) -> float:
    """Share of digits that are named rightly."""
    network.eval()
    with torch.no_grad():
        return (network(digits.images).argmax(dim=1) == digits.labels).double().mean().item()


def train_teacher(section: SegmentorConfig, digits: Digits, seed: int) -> nn.Module:
    """A network of a config section trained on real digits with cross-entropy, then frozen."""
    network = _network(section, derived_seed(seed, 0, 0, "initialisation"))
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    network.train()
    for _ in range(TEACHER_EPOCHS):
        for chosen in torch.randperm(len(digits.labels), generator=rng).split(64):
            supervised_step(
                model=network,
                images=digits.images[chosen],
                labels=digits.labels[chosen],
                optimizer=optimizer,
                loss_fn=label_loss(),
            )
    return network.eval().requires_grad_(False)


def distil_digits(config: Config, teacher: nn.Module) -> nn.Module:
    """The student that the config's data-free method makes of a teacher."""
    assert config.student is not None
    student = _network(config.student, derived_seed(config.seed, 1, 0, "initialisation"))
    experiment = assemble(config, meta_info(config), teacher=teacher, student=student)
    fabric = Fabric(accelerator="cpu", devices=1, precision=resolve_precision(config, cuda=False))  # type: ignore[arg-type]
    return run_method(experiment, fabric, None, None, Hooks(log_every=config.log_every))


def run_digits(
    configs: Sequence[str | Path],
    *,
    seeds: Sequence[int],
    split: str = "test",
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Train a teacher per seed, distil it by each config, print the accuracies and write them as JSON.

    Args:
        configs: files of data-free methods with `source: factory` networks.
        seeds: of teachers, students and games.
        split: on which all are scored; val is there to tune on.
        out: the JSON file, or None.
        overrides: `key=value` of all configs.

    Raises:
        InputError: anything wrong with the configs.
    """
    files = {Path(path).stem: path for path in configs}
    named = {name: load_config(path, list(overrides)) for name, path in files.items()}
    for name, config in named.items():
        if not config.data_free or config.num_classes != 10:
            raise InputError(f"{name}: the digits check wants a data-free method and num_classes: 10.")
        if config.device not in ("auto", "cpu"):
            raise InputError(f"{name}: the digits check runs on the CPU, and device is {config.device}. Leave it out.")
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ("teacher", *named)}
    for seed in seeds:
        teachers: dict[str, tuple[nn.Module, float]] = {}
        for name, config in named.items():
            assert config.teacher is not None
            train, test = (load_digits(part, config.image_size) for part in ("train", split))
            # Configs that agree on the teacher share it.
            key = repr((config.teacher, config.image_size))
            if key not in teachers:
                started = time.monotonic()
                teacher = train_teacher(config.teacher, train, seed)
                teachers[key] = teacher, accuracy(teacher, test)
                rows["teacher"].append(_row(seed, teachers[key][1], teachers[key][1], started))
            teacher, best = teachers[key]
            started = time.monotonic()
            student = distil_digits(load_config(files[name], [*overrides, f"seed={seed}"]), teacher)
            rows[name].append(_row(seed, accuracy(student, test), best, started))
            last = rows[name][-1]
            print(f"seed {seed}, {name}: {last['accuracy']:.3f} (teacher {best:.3f}), {last['seconds']:.0f} s")
    report = {"split": split, "rows": rows}
    print(format_digits(report))
    if out is not None:
        write_json(out, report)
    return report


def format_digits(report: dict[str, Any]) -> str:
    """The accuracies as a Markdown table: mean and standard deviation over the seeds."""
    lines = [
        f"| network | accuracy ({report['split']}) | share of the teacher's | seeds | seconds |",
        "|---|---|---|---|---|",
    ]
    for name, runs in report["rows"].items():
        values, shares = ([run[key] for run in runs] for key in ("accuracy", "of_teacher"))
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        lines.append(
            f"| {name} | {statistics.mean(values):.3f} ± {spread:.3f} | {statistics.mean(shares):.1%} "
            f"| {len(runs)} | {statistics.mean(run['seconds'] for run in runs):.0f} |"
        )
    return "\n".join(lines)


def _row(seed: int, value: float, teacher: float, started: float) -> dict[str, float]:
    seconds = round(time.monotonic() - started, 1)
    return {"seed": seed, "accuracy": value, "of_teacher": value / teacher, "seconds": seconds}


def _network(section: SegmentorConfig, seed: int) -> nn.Module:
    if section.source != "factory":
        raise InputError(f"the digits check builds its networks by source: factory, not {section.source}.")
    torch.manual_seed(seed)
    return build_factory(num_classes=10, **section.options())[0]
