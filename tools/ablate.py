"""Run an ablation: a config with some keys varied, over several seeds. See --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dfad_seg.cli import run_tool


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Train CONFIG with some of its keys varied, for several seeds, and write a table, a plot and a "
        "JSON file of the scores. Repeat the command to go on after an interruption; finished runs are kept.",
        epilog="Example: tools/ablate.py CONFIG --vary ema_decay=null --vary interpolation=mixup,cutmix --seeds 0,1,2",
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML file with evaluation, see configs/")
    parser.add_argument(
        "--vary",
        action="append",
        required=True,
        metavar="KEY=V1,V2",
        help="values of one key; KEY=V1@OTHER=X changes another key along with a value, such as iterations for "
        "equal time",
    )
    parser.add_argument("--mode", choices=["one-at-a-time", "grid"], default="one-at-a-time")
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="give every setting M minutes of training: time each first, and set its iterations accordingly",
    )
    parser.add_argument("--seeds", default="0,1,2", metavar="N,N,...", help="default: 0,1,2")
    parser.add_argument("--work-dir", metavar="DIR", help="default: runs/ablation_<config name>")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of all runs")
    parser.add_argument("--test", action="store_true", help="score all networks on the test split too, at the end")
    parser.add_argument("--table-only", action="store_true", help="train nothing; write the table of what there is")
    parser.add_argument(
        "--into",
        metavar="FILE",
        help="put the table into this Markdown file as well, and the plot into images/ beside it",
    )
    parser.add_argument("--name", metavar="NAME", help="with --into: between <!-- begin NAME --> and <!-- end NAME -->")
    arguments = parser.parse_args(argv)
    if (arguments.into is None) != (arguments.name is None):
        parser.error("--into and --name go together")
    if arguments.minutes is not None and not 0 < arguments.minutes < float("inf"):
        parser.error(f"--minutes {arguments.minutes}: a positive number is needed")
    try:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds {arguments.seeds}: whole numbers with commas between them are needed")

    from dfad_seg.ablation import ablate  # after --help: importing torch takes seconds
    from dfad_seg.recipes.provenance import command_line

    table = ablate(
        arguments.config,
        vary=arguments.vary,
        seeds=seeds,
        work_dir=arguments.work_dir or f"runs/ablation_{Path(arguments.config).stem}",
        mode=arguments.mode,
        minutes=arguments.minutes,
        overrides=arguments.cfg_options,
        test=arguments.test,
        table_only=arguments.table_only,
        into=arguments.into,
        name=arguments.name,
        command=command_line(),
    )
    print(table, end="")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
