"""What the command line tools do once their arguments are parsed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch.utils.flop_counter import FlopCounterMode

from dfad_seg.config import Config, EvaluationConfig, dump_config, load_config
from dfad_seg.distill import batch_norm_mode
from dfad_seg.errors import InputError
from dfad_seg.evaluation import format_table
from dfad_seg.files import write_json
from dfad_seg.pipeline.auto_batch import with_largest_batch
from dfad_seg.pipeline.evaluate import evaluate_network, load_role
from dfad_seg.pipeline.profiling import WARM_UP
from dfad_seg.pipeline.provenance import command_line
from dfad_seg.pipeline.run import build_experiment, train
from dfad_seg.segmentors import count_flops, count_parameters, file_sha256


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


def evaluate_from_arguments(
    *,
    config: str,
    checkpoint: str,
    overrides: list[str],
    role: str | None,
    split: str | None,
    dataset_root: str | None,
    out: str | None,
    show_dir: str | None,
    batch_size: int | None,
) -> int:
    """`tools/eval_miou.py`; returns the exit code."""
    if dataset_root is not None:
        overrides = [*overrides, f"dataset.root={json.dumps(dataset_root)}"]
    resolved = load_config(config, overrides)
    role = role or resolved.trained_role
    _check_outputs(out, show_dir)
    network = load_role(resolved, role, checkpoint)
    metrics = evaluate_network(
        resolved, network, split=split, batch_size=batch_size, device=resolved.device, show_dir=show_dir
    )
    print(format_table(metrics))
    if out is not None:
        section = resolved.evaluation or EvaluationConfig()
        record = {
            "role": role,
            "checkpoint": checkpoint,
            "checkpoint_sha256": file_sha256(checkpoint),
            "dataset": resolved.dataset.type if resolved.dataset else None,
            "split": split or section.split,
            "short_side": section.short_side,
            "parameters": count_parameters(network),
            "command": command_line(),
        }
        write_json(out, record | metrics.to_dict())
        print(f"metrics: {out}")
    if show_dir is not None:
        print(f"pictures: {show_dir}")
    return 0


def _check_outputs(out: str | None, show_dir: str | None) -> None:
    """Find out before a long evaluation that its results could not be written."""
    if out is not None and Path(out).is_dir():
        raise InputError(f"--out {out} is a folder. Give the path of a JSON file.")
    if show_dir is not None and Path(show_dir).exists() and not Path(show_dir).is_dir():
        raise InputError(f"--show-dir {show_dir} is a file. Give a folder.")
    for name, folder in (("--out", out and Path(out).absolute().parent), ("--show-dir", show_dir)):
        if folder is None:
            continue
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise InputError(f"cannot write {name} into {folder}: {error.strerror}.") from None
