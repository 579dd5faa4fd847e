"""What `tools/inspect_teacher.py` does once its arguments are parsed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from dfad_seg.config import SegmentorConfig
from dfad_seg.datasets import MetaInfo
from dfad_seg.datasets.metainfo import bit_palette
from dfad_seg.errors import InputError
from dfad_seg.files import write_text
from dfad_seg.pipeline.build import build_network
from dfad_seg.segmentors import Inspected, inspect_file

SIZE = 128


def inspect_from_arguments(*, file: str, trust: bool, num_classes: int | None, out: str | None) -> int:
    """`tools/inspect_teacher.py`; returns the exit code.

    Args:
        file: a checkpoint or a program.
        trust: load programs.
        num_classes: where the file does not show it.
        out: a file for the config, which is printed otherwise.
    """
    if out is not None and Path(out).exists():
        raise InputError(f"{out} exists already. Give another name as --out.")
    found = inspect_file(file, trust=trust)
    found.num_classes = found.num_classes or num_classes
    print(describe(file, found))
    for line in on_noise(found):
        print(line)
    config = starting_config(found)
    if config is None:
        print("no config: see the remarks above, and docs/bring_your_own.md")
    elif out is None:
        print(f"\na config to start from:\n\n{config}", end="")
    else:
        write_text(out, config)
        print(f"a config to start from: {out}")
    return 0


def describe(file: str | Path, found: Inspected) -> str:
    """The findings as lines of text."""
    lines = [f"{file}: {found.kind}"]
    if found.source is not None:
        fit = "fits exactly" if found.exact else "not checked against the weights"
        options = {key: value for key, value in found.options.items() if key not in ("checkpoint", "path", "trust")}
        shown = "".join(f", {key} {value}" for key, value in options.items())
        lines.append(f"  source: {found.source}{shown} ({fit})")
    names = f": {', '.join(found.classes)}" if found.classes else ""
    lines.append(f"  classes: {found.num_classes or 'not visible in the file'}{names}")
    if found.parameters is not None:
        lines.append(f"  parameters: {found.parameters:,}; BatchNorm layers: {found.batch_norms}")
    lines += [f"  {hint}" for hint in found.hints]
    return "\n".join(lines)


def on_noise(found: Inspected) -> list[str]:
    """What the network answers on noise, where it can be built from what is known."""
    if not found.exact or found.source is None or found.num_classes is None:
        return []
    info = MetaInfo(
        classes=found.classes or tuple(f"class_{i}" for i in range(found.num_classes)),
        palette=bit_palette(found.num_classes),
        named=found.classes is not None,
    )
    network = build_network(SegmentorConfig(source=found.source, **found.options), "teacher", info).eval()
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network(images)
    share = logits.argmax(1).flatten().bincount(minlength=found.num_classes).float() / logits[:, 0].numel()
    largest = int(share.argmax())
    line = (
        f"  on noise of {SIZE}x{SIZE}: logits {logits.min():.2f} to {logits.max():.2f},"
        f" most often {info.classes[largest]} ({100 * share[largest]:.0f} % of pixels)"
    )
    return [line] if bool(torch.isfinite(logits).all()) else [line, "  warning: there are logits that are not finite"]


def starting_config(found: Inspected) -> str | None:
    """A data-free distillation of this teacher as YAML, or None where no source takes the file."""
    if found.source is None:
        return None
    values: dict[str, Any] = {
        "method": "dfad",
        "num_classes": found.num_classes or 0,
        "teacher": {"source": found.source, **found.options},
        "student": {"source": "smp", "arch": "DeepLabV3Plus", "encoder_name": "tu-mobilenetv3_small_100"},
        "generator": {"type": "layout"},
        "student_loss": {"kl": 1.0, "mae": 0.2},
        "iterations": 2000,
        "batch_size": 16,
        "image_size": [SIZE, SIZE],
        "ema_decay": 0.99,
        "recalibrate_batches": 20,
        "student_optimizer": {"type": "adamw", "lr": 0.002},
        "generator_optimizer": {"type": "adam", "lr": 0.002, "betas": [0.5, 0.99]},
        "schedule": {"type": "cosine", "warmup": 10},
    }
    if found.batch_norms and found.source not in ("torchscript", "torch_export"):
        values["batch_norm_prior"] = 2.0
    remarks = ["# Everything but the teacher is a suggestion; docs/method.md explains the keys."]
    if not found.num_classes:
        remarks.append("# num_classes: the file does not show it; write the number here.")
    remarks += [f"# {hint}." for hint in found.hints if "guess" in hint or "placeholder" in hint]
    return "\n".join(remarks) + "\n" + yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=110)
