"""Train a teacher, or distil one into a student with or without data, as CONFIG says: one run directory.

exit codes: 0 done; 2 bad input; 3 diverged; 143 or 130 stopped by SIGTERM or Ctrl-C, to go on with --resume."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("config", metavar="CONFIG", help="YAML file, or the name of a shipped config (dfad-seg configs)")
    add("--work-dir", metavar="DIR", help="run directory (default: runs/<config name>)")
    resume = "go on with the run in the work-dir, from its newest checkpoint or from CKPT"
    add("--resume", nargs="?", const="latest", metavar="CKPT", help=resume)
    add("--seed", type=int, metavar="N")
    add("--device", choices=["auto", "cpu", "cuda"])
    add("--devices", type=int, metavar="N", help="processes per node")
    add("--num-nodes", type=int, metavar="N")
    add("--precision", metavar="P", help="auto, 32-true or bf16-mixed")
    add("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override config keys, e.g. seed=1")
    add("--minutes", type=float, metavar="N", help="data-free methods: the lengths that take about N minutes here")
    add("--dry-run", action="store_true", help="time three iterations; print config, parameters, FLOPs, minutes; stop")
    add("--auto-batch", action="store_true", help="data-free methods: the largest batch_size that memory holds")
    add("--profile", type=int, default=0, metavar="N", help="profile N iterations: a trace in profile.json")


def run(arguments: argparse.Namespace) -> int:
    from dfad_seg.recipes import load_config
    from dfad_seg.recipes.auto_batch import with_largest_batch
    from dfad_seg.recipes.device import say
    from dfad_seg.recipes.dry_run import describe
    from dfad_seg.recipes.lengths import with_minutes
    from dfad_seg.recipes.provenance import command_line
    from dfad_seg.recipes.train import train

    named = ("seed", "device", "devices", "num_nodes", "precision")
    overrides = [f"{key}={value}" for key in named if (value := getattr(arguments, key)) is not None]
    config = load_config(arguments.config, [*arguments.cfg_options, *overrides])
    if config.dataset is not None and config.evaluation is None:
        say("note: dataset is given and evaluation is not, so nothing will be scored. Add evaluation: {split: val}.")
    if arguments.minutes is not None:
        config = with_minutes(config, arguments.minutes)
        say(f"{arguments.minutes:g} minutes are about {config.iterations} iterations here")
    if arguments.dry_run:
        print(describe(config), end="")
        return 0
    work_dir = Path(arguments.work_dir or f"runs/{Path(arguments.config).stem}")
    if arguments.auto_batch:
        config = with_largest_batch(config, work_dir if arguments.resume is not None else None)
    path = train(config, work_dir, resume=arguments.resume, command=command_line(), profile=arguments.profile)
    say(f"trained network: {path}")
    return 0
