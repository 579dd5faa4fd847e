"""What every export format shares: its options, its record, and the check of the written file against the segmentor."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import umask
from dfad_seg.common.labels import labels_of
from dfad_seg.segmentors import Segmentor, exportable, state_hash

TOLERANCE = 1e-3
"""Largest accepted deviation of an exported network's logits, of the largest logit's magnitude."""

SMALLEST_SIDE = 32
LARGEST_SIDE = 8192
"""The image sides, in pixels, that files of dynamic size are made for."""

DEFAULT_SIZE = (256, 256)

Run = Callable[[Tensor], Tensor]
"""A loaded file at work: RGB images (N, 3, H, W) in [0, 1] → logits (N, C, H, W)."""


@dataclass(frozen=True)
class ExportOptions:
    """What an export is to do.

    Attributes:
        dynamic: any batch and image size; otherwise `size` alone, one image at a time.
        size: (H, W) in pixels of the images: the only ones, or those that are checked first.
        palette: one RGB triple (0-255) per class, for the metadata.
        origin: plain values about where the network comes from, for the metadata.
        base: for mmseg: a config of MMSegmentation whose data sets, pipelines and metrics the written one takes over.
    """

    dynamic: bool = True
    size: tuple[int, int] = DEFAULT_SIZE
    palette: tuple[tuple[int, int, int], ...] | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    base: str | None = None

    def __post_init__(self) -> None:
        if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in self.size):
            raise InputError(
                f"size is {self.size[0]}x{self.size[1]}; both sides must be {SMALLEST_SIDE} to {LARGEST_SIDE} pixels."
            )


@dataclass(frozen=True)
class Check:
    """The answers of the written file against the segmentor's, on images of one shape.

    Attributes:
        batch, height, width: of the images.
        max_difference: of the logits, the largest magnitude.
        largest_logit: the largest magnitude of the segmentor's logits, to judge the difference by.
        agreement: share of pixels with the same class, in [0, 1].
    """

    batch: int
    height: int
    width: int
    max_difference: float
    largest_logit: float
    agreement: float

    def __str__(self) -> str:
        return (
            f"{self.batch} x {self.height}x{self.width}: max difference {self.max_difference:.1e}"
            f" (logits up to {self.largest_logit:.1f}), same class on {100 * self.agreement:.3f} % of pixels"
        )


@dataclass(frozen=True)
class Exported:
    """What was written and what was checked.

    Attributes:
        format: its name.
        path: the file or folder.
        checks: against the segmentor; empty where the format holds weights that were compared bit by bit.
        notes: what else there is to know, one sentence each.
    """

    format: str
    path: Path
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_bytes(self) -> int:
        """The size of the file, or of all files in the folder."""
        files = [self.path] if self.path.is_file() else [p for p in self.path.rglob("*") if p.is_file()]
        return sum(file.stat().st_size for file in files)

    def report(self) -> str:
        """Some lines of text."""
        lines = [f"{self.format}: {self.path} ({self.num_bytes / 1e6:.2f} MB)"]
        return "\n".join([*lines, *(f"  {check}" for check in self.checks), *(f"  {note}" for note in self.notes)])

    def record(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self) | {"path": str(self.path), "bytes": self.num_bytes}


def compare(format: str, segmentor: Segmentor, run: Run, options: ExportOptions) -> tuple[Check, ...]:
    """Check a written file at several shapes (at `options.size` alone where it is not dynamic).

    Raises:
        InputError: it fails, or answers otherwise than the segmentor, by more than `TOLERANCE`.
    """
    checks = tuple(check_shape(segmentor, run, shape) for shape in check_shapes(options))
    for check in checks:
        if not check.max_difference <= TOLERANCE * max(check.largest_logit, 1e-6):
            raise InputError(
                f"the {format} file answers otherwise than the network ({check}), so it was not kept. Try another"
                " format, or one fixed size (--no-dynamic --size H W)."
            )
    return checks


def check_shapes(options: ExportOptions) -> list[tuple[int, int, int]]:
    """(batch, H, W) to check at; odd sizes among them, which need padding."""
    height, width = options.size
    if not options.dynamic:
        return [(1, height, width)]
    other = (max(33, height * 3 // 4 + 1), max(33, width // 2 + 3))
    return [(1, max(33, height), max(33, width)), (3, *other), (2, 33, 64)]


def check_shape(segmentor: Segmentor, run: Run, shape: tuple[int, int, int]) -> Check:
    """Compare a loaded file with the segmentor on seeded random images of (batch, H, W)."""
    batch, height, width = shape
    return check_images(segmentor, run, torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0)))


def check_images(segmentor: Segmentor, run: Run, images: Tensor) -> Check:
    """Compare a loaded file with the segmentor on images (N, 3, H, W) in [0, 1], both in evaluation mode on the CPU."""
    reference = exportable(segmentor, dynamic=False).segmentor
    with torch.no_grad():
        expected, found = reference(images), run(images)
    if found.shape != expected.shape:
        raise InputError(f"the exported network answers {tuple(found.shape)} where {tuple(expected.shape)} is needed.")
    return Check(
        batch=len(images),
        height=images.shape[-2],
        width=images.shape[-1],
        max_difference=float((found - expected).abs().max()),
        largest_logit=float(expected.abs().max()),
        agreement=float((labels_of(found) == labels_of(expected)).double().mean()),
    )


def description(segmentor: Segmentor, options: ExportOptions) -> dict[str, Any]:
    """What a user of the file has to know, as plain values: input, classes, colours, normalisation, origin."""
    return {
        "input": "RGB images (N, 3, H, W), float32, values in [0, 1]",
        "output": "logits (N, C, H, W), float32; argmax over C gives the class",
        "num_classes": segmentor.num_classes,
        "classes": list(segmentor.classes) if segmentor.classes is not None else None,
        "palette": [list(colour) for colour in options.palette] if options.palette is not None else None,
        "preprocessing": segmentor.preprocessing(),
        "state_sha256": state_hash(segmentor),
        **options.origin,
    }


def as_properties(described: dict[str, Any]) -> dict[str, str]:
    """`description` as the text pairs that file formats hold: text as it is, other values as JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in described.items()
        if value is not None
    }


def require(*packages: str) -> None:
    """Raise an `InputError` that says what to install if a package of the extra `export` is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"this needs {', '.join(missing)}, which is not installed: pip install 'dfad-seg[export]'.")


@contextmanager
def folder_whole(path: Path, names: Sequence[str]) -> Iterator[Path]:
    """A temporary folder that takes the place of `path` at the end of the block; on an error nothing is left.

    Args:
        path: the folder; files of it that are not in `names` are somebody else's, and refused.
        names: what the block writes.

    Raises:
        InputError: `path` is a file, or a folder with other files.
    """
    if path.exists():
        others = [p.name for p in path.iterdir() if p.name not in names] if path.is_dir() else []
        if not path.is_dir() or others:
            what = f"it holds {others[0]}" if others else "it is a file"
            raise InputError(f"{path} cannot be replaced: {what}. Give a new or empty folder as --out.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        # mkdtemp and safetensors make what they write private; it should follow the user's umask like any other file.
        temporary.chmod(0o777 & ~umask())
        for file in temporary.iterdir():
            file.chmod(0o666 & ~umask())
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def file_whole(path: Path) -> Iterator[Path]:
    """A temporary path with the same suffix, renamed to `path` at the end of the block; on an error it is removed."""
    if path.is_dir():
        raise InputError(f"{path} is a folder. Give the path of a file as --out.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        yield temporary
        temporary.replace(path)
