"""Write a trained network in a format for others. See --help and docs/export.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dfad_seg.cli import run_tool


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Write a trained network in a format for others, and check what was written against it."
    )
    parser.add_argument("source", metavar="RUN_OR_CHECKPOINT", help="run directory, or a student.pt or teacher.pt")
    parser.add_argument(
        "--format", required=True, metavar="F", help="onnx, torchscript, torch-export, safetensors, smp or mmseg"
    )
    parser.add_argument("--out", metavar="PATH", help="file, or folder for safetensors, smp and mmseg (default: "
        "beside the network file)")  # fmt: skip
    parser.add_argument("--dynamic", action=argparse.BooleanOptionalAction, default=True, help="any batch and image "
        "size (default), or one image of --size at a time")  # fmt: skip
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="image size in pixels (256 256)")
    parser.add_argument("--trust", action="store_true", help="run the code that the network file names (sources "
        "factory, torchscript, torch_export)")  # fmt: skip
    values = vars(parser.parse_args(argv))

    from dfad_seg.pipeline import export_from_arguments  # after --help: importing torch takes seconds

    size = values.pop("size")
    return export_from_arguments(size=None if size is None else tuple(size), **values)


if __name__ == "__main__":
    sys.exit(run_tool(main))
