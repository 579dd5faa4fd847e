"""What an experiment is and costs, before anything is trained: `--dry-run`."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from dfad_seg.config import Config, dump_config
from dfad_seg.distill import batch_norm_mode
from dfad_seg.recipes.build import build_experiment
from dfad_seg.recipes.cutting import without_rehearsal
from dfad_seg.recipes.lengths import price
from dfad_seg.segmentors import count_flops, count_parameters


def describe(config: Config) -> str:
    """The resolved config as YAML, and the cost of each network as comments."""
    experiment = build_experiment(without_rehearsal(config))
    height, width = config.image_size
    lines = [dump_config(config), f"# cost at {height}x{width}, one image, forward:\n"]
    for role, network in experiment.networks(experiment.trained).items():
        flops = count_flops(network, config.image_size)
        lines.append(f"# {role}: {count_parameters(network):,} parameters, {flops / 1e9:.3f} GFLOPs\n")
    if (generator := experiment.generator) is not None:
        latents = generator.sample(1, config.image_size, torch.Generator().manual_seed(0))
        with torch.no_grad(), batch_norm_mode(generator, "running"), FlopCounterMode(display=False) as counter:
            generator(latents)
        flops = counter.get_total_flops()
        lines.append(f"# generator: {count_parameters(generator):,} parameters, {flops / 1e9:.3f} GFLOPs\n")
    if config.data_free:
        lines.append(f"# {price(config)}\n")
    return "".join(lines)
