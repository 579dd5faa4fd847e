"""Score a segmentation network, a run, or predictions that any program wrote, on a data set.

examples:
  eval_miou.py config.yaml runs/a/student.pt --split test
  eval_miou.py runs/a --split test --ci --teacher runs/teacher --out a.json --out a.csv
  eval_miou.py runs/a --save-predictions out/pngs --save-coco out/results.json
  eval_miou.py --dataset voc --dataset-root VOC2012 --predictions out/pngs --subset cat,dog
  eval_miou.py --compare runs/a runs/b other=out/pngs --split test --out compared.json

exit codes: 0 done; 2 bad input. All percentages come from one confusion matrix over the whole split;
docs/evaluation.md has every formula and file format."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what is scored").add_argument
    add("config", metavar="CONFIG", nargs="?", help="YAML file: data set and architecture; or a run directory")
    add("checkpoint", metavar="CHECKPOINT", nargs="?", help="student.pt, teacher.pt, bare weights, or a run directory")
    add("--role", choices=["student", "teacher"], help="which network of CONFIG (default: the trained one)")
    add("--predictions", metavar="DIR|JSON", help="score index PNGs, or COCO results; no network is built")
    add("--compare", nargs="+", default=[], metavar="[NAME=]PATH", help="two or more runs, files or predictions; "
        "differences to the first, with a paired bootstrap over images; teacher: the first run's own")  # fmt: skip

    add = parser.add_argument_group("data").add_argument
    add("--split", help="e.g. test (default: the config's evaluation.split)")
    add("--dataset", metavar="TYPE", help="instead of a config: camvid, voc, street_scenes, ...")
    add("--dataset-root", metavar="DIR", help="instead of the config's dataset.root")
    add("--batch-size", type=int, metavar="N", help="images at once (default: the config's)")
    add(
        "--workers", dest="num_workers", type=int, metavar="N", help="processes that read files (default: the config's)"
    )

    add = parser.add_argument_group("inference").add_argument
    add(
        "--crop",
        dest="crop_size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="sliding windows of this size (default: whole images)",
    )
    add(
        "--stride",
        dest="crop_stride",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="between windows (default: two thirds of the window)",
    )
    add("--scales", type=float, nargs="+", metavar="S", help="average the probabilities of several sizes")
    add("--flip", action="store_true", default=None, help="and of the mirrored images")
    add("--precision", choices=["auto", "fp32", "bf16", "fp16"], help="default auto: bf16 where it is faster here")

    add = parser.add_argument_group("more metrics").add_argument
    add("--subset", metavar="A,B,...", help="mIoU of these classes as well")
    add("--boundary-iou", action="store_true", help="boundary IoU, 2 %% of the image's diagonal wide")
    add("--ece", action="store_true", help="expected calibration error over pixels, 15 bins")
    add("--teacher", metavar="PATH", help="agreement with this network, run or predictions")
    add("--ci", type=int, nargs="?", const=1000, default=0, metavar="N", help="95 %% interval of mIoU: bootstrap over "
        "images (default N: 1000)")  # fmt: skip

    add = parser.add_argument_group("output").add_argument
    add("--out", action="append", default=[], metavar="FILE", help=".json or .csv; may be repeated")
    add("--save-predictions", metavar="DIR", help="index PNGs with palette, in the label files' coding")
    add("--save-coco", metavar="FILE", help="COCO results (JSON), compressed run lengths per image and class")
    add("--show-dir", metavar="DIR", help="a picture per image: image, truth, prediction, errors, legend")

    parser.add_argument("--trust", action="store_true", help="run the code that a run or its network file names")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override config keys")


def run(arguments: argparse.Namespace) -> int:
    from dfad_seg.recipes import evaluate_from_arguments

    return evaluate_from_arguments(**vars(arguments))
