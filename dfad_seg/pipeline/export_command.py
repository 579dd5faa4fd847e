"""What `tools/export_student.py` does once its arguments are parsed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfad_seg.errors import InputError, choose
from dfad_seg.export import DEFAULT_SIZE, FORMATS, ExportOptions, export
from dfad_seg.pipeline.sources import run_config
from dfad_seg.segmentors import Segmentor, file_sha256, load_segmentor, read_segmentor_file


@dataclass(frozen=True)
class Model:
    """A network to export, with what its file and its run say of it."""

    path: Path
    segmentor: Segmentor
    palette: tuple[tuple[int, int, int], ...] | None
    origin: dict[str, Any]


def export_from_arguments(
    *,
    source: str,
    format: str,
    out: str | None,
    dynamic: bool,
    size: tuple[int, int] | None,
    trust: bool,
) -> int:
    """`tools/export_student.py`; returns the exit code.

    Args:
        source: a run directory, or the network file of one.
        format: a key of `FORMATS`.
        out: the file or folder; default: beside the network file.
        dynamic: any image size.
        size: (H, W) in pixels.
        trust: the network file may name code.
    """
    chosen = choose(FORMATS, format, "export format")
    model = open_model(source, trust=trust)
    options = ExportOptions(dynamic=dynamic, size=size or DEFAULT_SIZE, palette=model.palette, origin=model.origin)
    path = Path(out) if out is not None else model.path.parent / chosen.name.replace("student", model.path.stem)
    print(export(model.segmentor, path, format=format, options=options).report())
    return 0


def open_model(source: str | Path, *, trust: bool = False) -> Model:
    """The network of a run directory or of a file that a run wrote.

    Raises:
        InputError: there is none, or it needs `trust`.
    """
    path = Path(source)
    if path.is_dir():
        names = ("student.pt", "teacher.pt")
        file = next((path / name for name in names if (path / name).is_file()), None)
        if file is None:
            raise InputError(
                f"{path} has no student.pt or teacher.pt: it is no run directory, or its run has not finished."
            )
        path = file
    content = read_segmentor_file(path)
    segmentor = load_segmentor(path, trust=trust)
    palette = content["palette"]
    colours = None if palette is None else tuple((int(r), int(g), int(b)) for r, g, b in palette)
    return Model(path, segmentor, colours, _origin(path))


def _origin(path: Path) -> dict[str, Any]:
    """What the metadata says about where the network comes from: hashes, and the run's provenance."""
    origin: dict[str, Any] = {"source_sha256": file_sha256(path)}
    record = path.parent / "provenance.json"
    if run_config(path) is not None and record.is_file():
        try:
            values = json.loads(record.read_text(encoding="utf-8"))
        except ValueError:
            return origin
        kept = ("method", "seed", "real_images_used_for_training", "dfad_seg", "git_commit")
        origin["provenance"] = {key: values[key] for key in kept if key in values}
        origin["provenance_sha256"] = file_sha256(record)
    return origin
