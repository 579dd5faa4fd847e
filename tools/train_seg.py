"""Train or distil a segmentation network: one config, one run directory. See --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dfad_seg.cli import run_tool


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Train a teacher, or distil one into a student with or without data, as CONFIG says.",
        epilog="Exit codes: 0 done; 2 bad input; 3 diverged; 143 or 130 stopped by SIGTERM or Ctrl-C, to go on with "
        "--resume.",
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML file, see configs/")
    parser.add_argument("--work-dir", metavar="DIR", help="run directory (default: runs/<config name>)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="latest",
        metavar="CKPT",
        help="go on with the run in the work-dir, from its newest checkpoint or from CKPT",
    )
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--devices", type=int, metavar="N", help="processes per node")
    parser.add_argument("--num-nodes", type=int, metavar="N")
    parser.add_argument("--precision", metavar="P", help="32-true, bf16-mixed or auto")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override config keys, e.g. seed=1"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved config, parameters and FLOPs, and stop"
    )
    parser.add_argument(
        "--auto-batch",
        action="store_true",
        help="data-free methods: take the largest batch_size that fits into memory; resuming keeps the run's",
    )
    parser.add_argument(
        "--profile",
        type=int,
        default=0,
        metavar="N",
        help="profile N iterations: trace in the run directory's profile.json, the ten most expensive operators shown",
    )
    arguments = parser.parse_args(argv)

    from dfad_seg.recipes import train_from_arguments  # after --help: importing torch takes seconds

    return train_from_arguments(
        config=arguments.config,
        overrides=[
            *arguments.cfg_options,
            *(
                f"{key}={value}"
                for key in ("seed", "device", "devices", "num_nodes", "precision")
                if (value := getattr(arguments, key)) is not None
            ),
        ],
        work_dir=arguments.work_dir or f"runs/{Path(arguments.config).stem}",
        resume=arguments.resume,
        dry_run=arguments.dry_run,
        profile=arguments.profile,
        auto_batch=arguments.auto_batch,
    )


if __name__ == "__main__":
    sys.exit(run_tool(main))
