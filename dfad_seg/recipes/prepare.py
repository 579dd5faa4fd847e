"""Data sets are put in place, or checked."""

from typing import Any

from dfad_seg.config import apply_override
from dfad_seg.datasets import write_street_scenes
from dfad_seg.datasets.check import inspect_dataset
from dfad_seg.datasets.prepare import prepare_dataset


def prepare(command: str, root: str, **options: Any) -> None:
    """Put a data set in place, or check one, and print the number of images by split; see `dfad-seg prepare --help`.

    Raises InputError with every fault that a check found."""
    if command == "check":
        values: dict[str, Any] = {}
        for option in options.pop("options"):
            apply_override(values, option, "--options")
        found = inspect_dataset(options.pop("type"), root, options=values, **options)
        _print_counts(root, found.counts)
        print("".join(f"  {line}\n" for line in found.lines()), end="")
        found.in_order()
    elif command == "street-scenes":
        counts = {split: options[split] for split in ("train", "val", "test")}
        write_street_scenes(root, size=tuple(options["size"]), counts=counts, seed=options["seed"])
        _print_counts(root, counts)
    else:
        _print_counts(root, prepare_dataset(command, root, **options))


def _print_counts(root: str, counts: dict[str, int]) -> None:
    print(f"{root}: " + (", ".join(f"{count} {split}" for split, count in counts.items()) or "no") + " images")
