"""What `tools/train_seg.py` does once its arguments are parsed."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch.utils.flop_counter import FlopCounterMode

from dfad_seg.common.errors import InputError
from dfad_seg.config import Config, dump_config, load_config
from dfad_seg.distill import batch_norm_mode
from dfad_seg.recipes.auto_batch import with_largest_batch
from dfad_seg.recipes.experiment import build_experiment
from dfad_seg.recipes.profiling import WARM_UP
from dfad_seg.recipes.provenance import command_line
from dfad_seg.recipes.run import train
from dfad_seg.segmentors import count_flops, count_parameters


def train_from_arguments(
    *,
    config: str,
    overrides: list[str],
    work_dir: str,
    resume: str | None,
    dry_run: bool,
    profile: int = 0,
    auto_batch: bool = False,
) -> int:
    """`tools/train_seg.py`; returns the exit code."""
    resolved = load_config(config, overrides)
    if resolved.dataset is not None and resolved.evaluation is None:
        note = "note: dataset is given and evaluation is not, so nothing will be scored. Add evaluation: {split: val}."
        rank_zero_only(print)(note, file=sys.stderr)
    if dry_run:
        print(describe(resolved), end="")
        return 0
    if profile < 0:
        raise InputError(f"--profile {profile}: a number of iterations above 0 is needed.")
    if profile and resolved.iterations <= WARM_UP:
        raise InputError(f"--profile begins after {WARM_UP} iterations, and iterations is {resolved.iterations}.")
    if auto_batch:
        begun = Path(work_dir) / "config.yaml"
        if resume is not None and begun.exists():
            resolved = resolved.model_copy(update={"batch_size": load_config(begun).batch_size})
        else:
            resolved = with_largest_batch(resolved)
    path = train(resolved, work_dir, resume=resume, command=command_line(), profile=profile)
    rank_zero_only(print)(f"trained network: {path}")
    return 0


def describe(config: Config) -> str:
    """The resolved config as YAML, and the cost of each network as comments."""
    experiment = build_experiment(config)
    height, width = config.image_size
    lines = [dump_config(config), f"# cost at {height}x{width}, one image, forward:\n"]
    networks = {"teacher": experiment.teacher, config.trained_role: experiment.trained}
    for role, network in networks.items():
        if network is not None:
            flops = count_flops(network, config.image_size)
            lines.append(f"# {role}: {count_parameters(network):,} parameters, {flops / 1e9:.3f} GFLOPs\n")
    if experiment.generator is not None:
        generator, rng = experiment.generator, torch.Generator().manual_seed(0)
        latents = generator.sample(1, config.image_size, rng)
        with torch.no_grad(), batch_norm_mode(generator, "running"), FlopCounterMode(display=False) as counter:
            generator(latents)
        flops = counter.get_total_flops()
        lines.append(f"# generator: {count_parameters(generator):,} parameters, {flops / 1e9:.3f} GFLOPs\n")
    return "".join(lines)
