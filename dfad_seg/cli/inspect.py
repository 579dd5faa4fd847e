"""Say what a checkpoint looks like: source, classes, parameters, normalisation, predictions on noise; print a config to
start from. Nothing in the file is run without --trust."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE", help=".pt, .pth, .safetensors, TorchScript or torch.export file")
    add("--trust", action="store_true", help="load TorchScript and torch.export files, which are code")
    add("--key", metavar="NAME", help="which weights of a file that has several, such as model_ema")
    add("--num-classes", type=int, metavar="N", help="where the file does not show it")
    add("--out", metavar="CONFIG", help="write the config to this file")


def run(arguments: argparse.Namespace) -> int:
    from dfad_seg.recipes import inspect_teacher

    inspect_teacher(**vars(arguments))
    return 0
