"""What `tools/inspect_teacher.py` does once its arguments are parsed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_text
from dfad_seg.common.palette import bit_palette
from dfad_seg.config import shipped_configs
from dfad_seg.datasets import MetaInfo
from dfad_seg.objectives import ClassShares
from dfad_seg.recipes.build import build_network
from dfad_seg.segmentors import Inspected, Segmentor, inspect_file

SIZE = 128
"""Of the images of noise."""
RECIPE = "camvid/recommended_cpu_30min"


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
    network = built(found)
    if network is not None:
        print("\n".join(on_noise(network, found.classes)))
    config = starting_config(found, network)
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


def built(found: Inspected) -> Segmentor | None:
    """The network, where it can be built from what is known."""
    if not found.exact or found.source is None or found.num_classes is None:
        return None
    info = MetaInfo(
        classes=found.classes or tuple(f"class_{i}" for i in range(found.num_classes)),
        palette=bit_palette(found.num_classes),
        named=found.classes is not None,
    )
    return build_network(found.source, found.options, "teacher", info).eval()


def on_noise(network: Segmentor, classes: tuple[str, ...] | None) -> list[str]:
    """What the network answers on noise."""
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network(images)
    share = logits.argmax(1).flatten().bincount(minlength=network.num_classes).float() / logits[:, 0].numel()
    largest = int(share.argmax())
    line = (
        f"  on noise of {SIZE}x{SIZE}: logits {logits.min():.2f} to {logits.max():.2f},"
        f" most often {classes[largest] if classes else f'class_{largest}'} ({100 * share[largest]:.0f} % of pixels)"
    )
    return [line] if bool(torch.isfinite(logits).all()) else [line, "  warning: there are logits that are not finite"]


def starting_config(found: Inspected, network: Segmentor | None = None) -> str | None:
    """The recommended distillation of this teacher as YAML, without a data set; None where no source takes the file."""
    if found.source is None:
        return None
    recipe = yaml.safe_load(shipped_configs()[RECIPE].read_text(encoding="utf-8"))
    for key in ("method", "teacher", "dataset", "evaluation"):
        recipe.pop(key)
    values: dict[str, Any] = {"method": "dfad"}
    values |= {"num_classes": found.num_classes} if found.num_classes else {}
    values |= {"teacher": {"source": found.source, **found.options}} | recipe
    if not found.batch_norms or found.source in ("torchscript", "torch_export"):
        del values["priors"]["batch_norm_prior"]
        values["generator"]["class_frequencies"] = "uniform"
    elif network is not None and not ends_in_batch_norm(network):
        values["generator"]["class_frequencies"] = "uniform"
    remarks = [
        f"# The recipe of configs/{RECIPE}.yaml; docs/method.md explains the keys. All but the teacher",
        "# is a suggestion: take a larger student, image_size or number of iterations on a larger machine,",
        "# and give a dataset with an evaluation if there are labelled images to score with.",
    ]
    if not found.num_classes:
        remarks.append("# num_classes: the file does not show it; write the number here.")
    remarks += [f"# {hint}." for hint in found.hints if "guess" in hint or "placeholder" in hint]
    return "\n".join(remarks) + "\n" + yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=110)


def ends_in_batch_norm(network: Segmentor) -> bool:
    """Whether class frequencies can be estimated from the network."""
    try:
        ClassShares.of(network)
    except InputError:
        return False
    return True
