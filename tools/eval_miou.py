"""Score a trained network: aAcc, mIoU, mAcc and the per-class table. See --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dfad_seg.cli import run_tool


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Score CHECKPOINT on the data set of CONFIG, from one confusion matrix over the whole split.",
        epilog="Exit codes: 0 done; 2 bad input.",
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML file: the data set and the network's architecture")
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a run's student.pt or teacher.pt, or a bare state dict"
    )
    parser.add_argument("--role", choices=["student", "teacher"], help="which network of CONFIG (default: the trained)")
    parser.add_argument("--split", help="e.g. test (default: the config's evaluation.split)")
    parser.add_argument("--dataset-root", metavar="DIR", help="instead of the config's dataset.root")
    parser.add_argument("--out", metavar="FILE", help="write the metrics as JSON")
    parser.add_argument("--show-dir", metavar="DIR", help="write a picture per image: image, truth, prediction, errors")
    parser.add_argument("--batch-size", type=int, metavar="N")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override config keys")
    arguments = parser.parse_args(argv)

    from dfad_seg.pipeline import evaluate_from_arguments  # after --help: importing torch takes seconds

    values = vars(arguments)
    return evaluate_from_arguments(overrides=values.pop("cfg_options"), **values)


if __name__ == "__main__":
    sys.exit(run_tool(main))
