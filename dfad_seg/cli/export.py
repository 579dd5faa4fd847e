"""Write a trained network in a format for others, and check what was written against it."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="RUN_OR_CHECKPOINT", help="run directory, or a student.pt or teacher.pt")
    add("--format", required=True, metavar="F", help="onnx, torchscript, torch-export, safetensors, smp or mmseg")
    add("--out", metavar="PATH", help="file, or folder for safetensors, smp, mmseg (default: beside the network file)")
    add("--dynamic", action=argparse.BooleanOptionalAction, default=True, help="any batch and image size (default), or "
        "one image of --size at a time")  # fmt: skip
    add("--size", type=int, nargs=2, metavar=("H", "W"), help="image size in pixels (256 256)")
    add("--int8", action="store_true", help="for onnx: a second file in 8-bit integers, calibrated on images from the "
        "run's generator")  # fmt: skip
    add("--calibration-images", type=int, default=64, metavar="N", help="how many of them (%(default)s)")
    add("--base", metavar="CONFIG", help="for mmseg: the config of MMSegmentation whose data sets and metrics the "
        "written one takes over")  # fmt: skip
    add("--trust", action="store_true", help="run the code that the network file names (sources factory, torchscript, "
        "torch_export)")  # fmt: skip
    add = parser.add_argument_group("figures").add_argument
    add("--split", help="mIoU of the network and of the files on this split of the run's data set")
    add("--config", metavar="CONFIG", help="... of this config's data set")
    add("--dataset", metavar="TYPE", help="... of this data set: camvid, voc, ...")
    add("--dataset-root", metavar="DIR", help="and its folder")
    add("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides", help="override config keys")


def run(arguments: argparse.Namespace) -> int:
    from dfad_seg.recipes import export_from_arguments

    values = vars(arguments)
    size = values.pop("size")
    return export_from_arguments(size=None if size is None else tuple(size), **values)
