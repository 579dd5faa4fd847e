"""Segmentor files: a network with what is needed to rebuild it, and hashes that identify weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_torch
from dfad_seg.common.tensors import digest, read_tensors
from dfad_seg.segmentors import base
from dfad_seg.segmentors.base import Segmentor
from dfad_seg.segmentors.mmseg_source import runs_code
from dfad_seg.segmentors.sources import build_segmentor
from dfad_seg.segmentors.weights import find_state_dict, load_state, load_weights, read_state_dict

__all__ = [
    "FORMAT",
    "VERSION",
    "WEIGHT_OPTIONS",
    "file_sha256",
    "load_segmentor",
    "load_weights",
    "read_segmentor_file",
    "read_state_dict",
    "save_segmentor",
    "state_hash",
]

FORMAT = "dfad_seg/segmentor"
VERSION = 1

# These name files or downloads that went into the weights; the saved weights stand for them.
WEIGHT_OPTIONS = ("checkpoint", "encoder_checkpoint", "encoder_weights")
# Rebuilding from these runs code that a file names or contains.
_CODE_SOURCES = ("torchscript", "torch_export", "factory")


def save_segmentor(
    path: str | Path,
    segmentor: Segmentor,
    *,
    spec: dict[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    palette: Sequence[Sequence[int]] | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write a segmentor as one file of tensors and plain values, whole.

    Args:
        spec: the options of `build_segmentor` (with `source` and `num_classes`); default: `segmentor.spec`.
            Options that name weights are left out, the actual normalisation is put in.
        classes: class names in label order; default: the segmentor's own.
        palette: one RGB triple (0-255) per class; default: the segmentor's own.
        extra: further plain values and tensors.

    Raises:
        InputError: no spec, values in it that are not plain, or `classes` or `palette` of another length.
    """
    spec = segmentor.spec if spec is None else spec
    if spec is None:
        raise InputError("this segmentor was built by hand and has no spec: give the options of build_segmentor.")
    classes = segmentor.classes if classes is None else classes
    palette = segmentor.palette if palette is None else palette
    for name, values in (("classes", classes), ("palette", palette)):
        if values is not None and len(values) != segmentor.num_classes:
            raise InputError(f"{name} has {len(values)} entries; the segmentor has {segmentor.num_classes} classes.")
    kept = {name: value for name, value in spec.items() if name not in (*WEIGHT_OPTIONS, "classes")}
    # A factory that returns a ready segmentor brings its normalisation itself, and takes none.
    ready_made = spec["source"] == "factory" and "mean" not in spec
    preprocessing = {} if ready_made else segmentor.preprocessing()
    state = {key: value.detach().cpu() for key, value in segmentor.network_state_dict().items()}
    content = {
        "format": FORMAT,
        "version": VERSION,
        "state_dict": state,
        "spec": _plain({**kept, "num_classes": segmentor.num_classes, **preprocessing}, "spec"),
        "classes": list(classes) if classes is not None else None,
        "palette": [[int(v) for v in colour] for colour in palette] if palette is not None else None,
        "extra": _plain(extra or {}, "extra"),
    }
    write_torch(path, content)


def read_segmentor_file(path: str | Path) -> dict[str, Any]:
    """The content of a file that `save_segmentor` wrote.

    Returns:
        `format`, `version`, `state_dict` (the network's own keys), `spec`, `classes`, `palette`, `extra`.

    Raises:
        InputError: as `read_state_dict`; a bare state dict; a file of a later version.
    """
    content = read_tensors(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(
            f"{path} is not a segmentor file: it does not say which network it belongs to. Bare weights need"
            " the network's options: build_segmentor(..., checkpoint=path), or a config."
        )
    if content.get("version") != VERSION:
        raise InputError(
            f"{path} is a segmentor file of version {content.get('version')!r}; this release reads version"
            f" {VERSION}. Install the release that wrote it, or a later one."
        )
    missing = [key for key in ("state_dict", "spec", "classes", "palette", "extra") if key not in content]
    spec = content.get("spec")
    if missing or not isinstance(spec, dict) or not {"source", "num_classes"} <= set(spec):
        raise InputError(
            f"{path} is an incomplete segmentor file: it lacks"
            f" {', '.join(missing) or 'source or num_classes in its spec'}. Write it again."
        )
    return content


def load_segmentor(path: str | Path, *, freeze: bool = False, trust: bool = False) -> Segmentor:
    """Rebuild the segmentor in a file that `save_segmentor` wrote.

    Args:
        freeze: fix it for good, see `dfad_seg.segmentors.freeze`.
        trust: allow a file to name a Python factory, a TorchScript or torch.export file, or a part of another package
            in a network of MMSegmentation: that is code.

    Returns:
        The segmentor on the CPU, in evaluation mode.

    Raises:
        InputError: as `read_segmentor_file` and `build_segmentor`; a source that needs `trust`.
    """
    content = read_segmentor_file(path)
    # A file from elsewhere may name further files or downloads; its own weights are all that is wanted.
    spec = {name: value for name, value in content["spec"].items() if name not in WEIGHT_OPTIONS}
    origin = spec["of"] if spec["source"] == "cut" and isinstance(spec.get("of"), dict) else spec
    if (origin.get("source") in _CODE_SOURCES or runs_code(origin)) and not trust:
        raise InputError(
            f"{path} is rebuilt by the source '{origin.get('source')}', which runs code that the file names. If"
            " you trust the file, pass trust=True."
        )
    segmentor = build_segmentor(**spec)
    if content["classes"] is not None:
        segmentor.classes = tuple(content["classes"])
    segmentor.palette = content["palette"]
    load_state(segmentor.network, find_state_dict(content, path), path, num_classes=segmentor.num_classes)
    segmentor.eval()
    return base.freeze(segmentor) if freeze else segmentor


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        InputError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    return digest.hexdigest()


def state_hash(module: nn.Module) -> str:
    """SHA-256 over a module's state (sorted names, types, shapes, bytes), in hexadecimal.

    The same on any device. Of a segmentor, the network's own names count, so it equals that of the plain
    network.
    """
    return digest(module.network_state_dict() if isinstance(module, Segmentor) else module.state_dict())


def _plain(value: Any, name: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str, Tensor)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, name) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item, f"{name}.{key}") for key, item in value.items()}
    raise InputError(
        f"{name} is a {type(value).__name__}; only plain values (numbers, text, lists, mappings) can be stored."
    )
