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
    add("--dry-run", action="store_true", help="print the resolved config, parameters and FLOPs, and stop")
    add("--auto-batch", action="store_true", help="data-free methods: the largest batch_size that memory holds")
    add("--profile", type=int, default=0, metavar="N", help="profile N iterations: a trace in profile.json")


def run(arguments: argparse.Namespace) -> int:
    from dfad_seg.recipes import train_from_arguments

    named = ("seed", "device", "devices", "num_nodes", "precision")
    overrides = [f"{key}={value}" for key in named if (value := getattr(arguments, key)) is not None]
    return train_from_arguments(
        config=arguments.config,
        overrides=[*arguments.cfg_options, *overrides],
        work_dir=arguments.work_dir or f"runs/{Path(arguments.config).stem}",
        resume=arguments.resume,
        dry_run=arguments.dry_run,
        profile=arguments.profile,
        auto_batch=arguments.auto_batch,
    )
