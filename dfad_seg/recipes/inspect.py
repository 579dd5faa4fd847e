"""What a checkpoint is, in words, and a config to start from."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from dfad_seg.common.errors import InputError, printable
from dfad_seg.common.files import check_target, write_text
from dfad_seg.config import shipped_configs
from dfad_seg.distill.losses import ClassShares
from dfad_seg.segmentors import CutOptions, Inspected, Segmentor, build_segmentor, cut, inspect_file

CUT, OTHER = "camvid/cut_50", "camvid/recommended_cpu_30min"
"""The best measured recipe where a student can be cut out of the teacher, and where it cannot."""


def inspect_teacher(
    file: str | Path,
    *,
    trust: bool = False,
    num_classes: int | None = None,
    out: str | Path | None = None,
    key: str | None = None,
    factory: str | None = None,
    student: str = "cut",
) -> None:
    """Print what a checkpoint is and, where a source takes it, a config to start from: `dfad-seg inspect`.

    student: `cut` out of the teacher, where that can be, or `other`, which has another recipe.
    """
    if out is not None:
        if Path(out).exists():
            raise InputError(f"{out} exists already. Give another name as --out.")
        check_target(out, "--out")
    found = inspect_file(file, trust=trust, key=key, factory=factory)
    found.num_classes = found.num_classes or num_classes
    print(describe(file, found))
    network = None
    if found.exact and found.source is not None and found.num_classes is not None:
        network = build_segmentor(found.source, num_classes=found.num_classes, **found.options).eval()
    config = starting_config(found, network, student)
    if config is None:
        print("no config: see the remarks above, and docs/bring_your_own.md")
    elif out is None:
        print(f"\na config to start from:\n\n{config}", end="")
    else:
        write_text(out, config)
        print(f"a config to start from: {out}")


def describe(file: str | Path, found: Inspected) -> str:
    """The findings as lines of text."""
    lines = [f"{printable(file)}: {found.kind}"]
    if found.source is not None:
        fit = "not checked against the weights"
        if found.exact:
            fit = "fits exactly" if len(found.candidates) < 2 else f"one of {len(found.candidates)} that fit"
        lines.append(f"  source: {found.source}{_options(found.options, ', ')} ({fit})")
    names = f": {', '.join(printable(name, 40) for name in found.classes)}" if found.classes else ""
    lines.append(f"  classes: {found.num_classes or 'not visible in the file'}{names}")
    if found.parameters is not None:
        lines.append(f"  parameters: {found.parameters:,}; BatchNorm layers: {found.batch_norms}")
    lines += [f"  {printable(hint, 400)}" for hint in found.hints]
    return "\n".join(lines)


def _options(options: Mapping[str, Any], before: str) -> str:
    shown = [f"{key} {value}" for key, value in options.items() if key not in ("checkpoint", "path", "trust")]
    return before * bool(shown) + ", ".join(shown)


def starting_config(found: Inspected, network: Segmentor | None = None, student: str = "cut") -> str | None:
    """The best measured recipe for this teacher as YAML, without a data set; None where no source takes the file."""
    if found.source is None:
        return None
    half = CutOptions(macs=0.5, importance="magnitude", compensate=False)
    program = found.source in ("torchscript", "torch_export")
    cuts = student == "cut" and not program  # most can be, and what cannot says so when it is to be
    if cuts and network is not None:
        cuts = works(lambda: cut(network, half, network.fixed_size or (128, 128)))
    name = CUT if cuts else OTHER
    recipe = yaml.safe_load(shipped_configs()[name].read_text(encoding="utf-8"))
    for key in ("method", "teacher", "dataset", "evaluation"):
        recipe.pop(key)
    values: dict[str, Any] = {"method": "dfad"}
    values |= {"num_classes": found.num_classes} if found.num_classes else {}
    values |= {"teacher": {"source": found.source, **found.options}} | recipe
    if "in_channels" in found.options and name == OTHER:
        values["student"] |= {"in_channels": found.options["in_channels"]}
        values["student"] |= {key: [*found.options[key]] for key in ("mean", "std")}  # not the same lists
    if network is not None and network.out_channels < network.num_classes:
        values["logit_adjustment"] = 0.0
    if network is not None and network.fixed_size is not None:
        values["image_size"] = list(network.fixed_size)
    opaque = program or not found.batch_norms
    if opaque:
        del values["priors"]["batch_norm_prior"]
    if opaque or (network is not None and not works(lambda: ClassShares.of(network))):
        values["generator"]["class_frequencies"] = "uniform"  # the network does not tell them
    remarks = [
        f"# The recipe of configs/{name}.yaml; docs/method.md explains the keys. --minutes N fits its lengths to your",
        "# time; image_size may be larger on a larger machine. Add a dataset with an evaluation if there are labelled",
        "# images to score with: without, the report estimates how good the student is.",
    ]
    if not found.num_classes:
        remarks.append("# num_classes: the file does not show it; write the number here.")
    remarks += [f"# {hint}." for hint in found.hints if "guess" in hint or "placeholder" in hint]
    if len(found.candidates) > 1:
        remarks.append("# The file cannot tell its network from these, whose predictions differ; take the one trained:")
        remarks += [f"#   {_options(options, '')}" for options in found.candidates[1:]]
    dumped = yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=110)
    for key, comment in _choices(name, found, student, mask=values["logit_adjustment"] == 0).items():
        dumped = re.sub(rf"^(?={key}:)", f"# {comment}\n", dumped, flags=re.MULTILINE)
    return "\n".join(remarks) + "\n" + dumped


def _choices(recipe: str, found: Inspected, student: str, mask: bool) -> dict[str, str]:
    """By key, what there is to choose about it, or why it is as it is."""
    told = {
        "student": "The teacher with half of its multiply-accumulates: the best measured choice. macs is the share to\n"
        "# keep. Another network needs another recipe, with longer training: inspect --student other writes it."
        if recipe == CUT
        else ("This teacher cannot be cut, so the" if student == "cut" else "The")
        + " student is another network. From random weights it keeps less: an\n"
        "# encoder_checkpoint of ImageNet weights, if these are allowed, is the best measured choice."
    }
    if found.source == "transformers":
        told["student"] += "\n# A cut one has no save_pretrained; {source: transformers, model: ...} has."
    if mask:
        told["logit_adjustment"] = "The mask's logit means what the teacher's does; 0.5 would favour what is rare."
    if not found.batch_norms:
        told["priors"] = "This teacher shows no BatchNorm, whose statistics are the strongest prior: expect less."
    return told


def works(act: Callable[[], object]) -> bool:
    """Whether a network has what the act needs of it."""
    try:
        act()
    except InputError:
        return False
    return True
