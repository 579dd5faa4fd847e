"""What the command line tools do once their arguments are parsed."""

from __future__ import annotations

import signal

from dfad_seg.config import Config, dump_config, load_config
from dfad_seg.distill import Interrupted
from dfad_seg.pipeline.provenance import command_line
from dfad_seg.pipeline.train import build_experiment, train
from dfad_seg.segmentors import count_flops, count_parameters


def train_from_arguments(
    *, config: str, overrides: list[str], work_dir: str, resume: str | None, dry_run: bool
) -> int:
    """`tools/train_seg.py`; returns the exit code."""
    resolved = load_config(config, overrides)
    if dry_run:
        print(describe(resolved), end="")
        return 0
    try:
        path = train(resolved, work_dir, resume=resume, command=command_line())
    except Interrupted as stop:
        number = stop.signal_number or signal.SIGINT
        print(f"{stop}: saved in {work_dir}. Go on with the same command and --resume.", flush=True)
        return 128 + number
    print(f"trained network: {path}")
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
        lines.append(f"# generator: {count_parameters(experiment.generator):,} parameters\n")
    return "".join(lines)
