"""Segmentor files: a network with what is needed to rebuild it, and hashes that identify weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dfad_seg.common.errors import InputError, printable
from dfad_seg.common.files import write_torch
from dfad_seg.common.tensors import digest, read_tensors
from dfad_seg.common.values import options, validated
from dfad_seg.segmentors.base import Segmentor
from dfad_seg.segmentors.kinds import WEIGHT_OPTIONS

FORMAT = "dfad_seg/segmentor"
VERSION = 1


@options
class _File:
    """What a segmentor file holds."""

    format: str
    version: int
    state_dict: dict[str, Any]
    spec: dict[str, Any]
    classes: tuple[str, ...] | None
    palette: list[tuple[int, int, int]] | None
    extra: dict[str, Any]
    sha256: str
    """`state_hash` of the state."""


def stored_spec(segmentor: Segmentor) -> dict[str, Any]:
    """The options from which `build_segmentor` rebuilds a network without its weights, as plain values.

    Raises:
        InputError: it was built by hand, or by values that are not plain.
    """
    if segmentor.spec is None:
        raise InputError("this segmentor was built by hand and has no spec: build it by build_segmentor.")
    kept = {name: value for name, value in segmentor.spec.items() if name not in (*WEIGHT_OPTIONS, "classes")}
    # A factory that returns a ready segmentor brings its normalisation itself, and takes none.
    contract = segmentor.preprocessing() if kept["source"] != "factory" or "mean" in kept else {}
    return _plain({**kept, "num_classes": segmentor.num_classes, **contract}, "spec")


def save_segmentor(
    path: str | Path,
    segmentor: Segmentor,
    *,
    classes: Sequence[str] | None = None,
    palette: Sequence[Sequence[int]] | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write a segmentor as one file of tensors and plain values, whole.

    Args:
        classes: class names in label order; default: the segmentor's own.
        palette: one RGB triple (0-255) per class; default: the segmentor's own.
        extra: further plain values and tensors.

    Raises:
        InputError: as `stored_spec`, values that are not plain, or `classes` or `palette` of another length.
    """
    classes = segmentor.classes if classes is None else classes
    palette = segmentor.palette if palette is None else palette
    for name, values in (("classes", classes), ("palette", palette)):
        if values is not None and len(values) != segmentor.num_classes:
            raise InputError(f"{name} has {len(values)} entries; the segmentor has {segmentor.num_classes} classes.")
    state = {key: value.detach().cpu() for key, value in segmentor.network.state_dict().items()}
    content = {
        "format": FORMAT,
        "version": VERSION,
        "state_dict": state,
        "spec": stored_spec(segmentor),
        "classes": list(classes) if classes is not None else None,
        "palette": [[int(v) for v in colour] for colour in palette] if palette is not None else None,
        "extra": _plain(extra or {}, "extra"),
        "sha256": digest(state),
    }
    write_torch(path, content)


def is_segmentor_file(content: Any) -> bool:
    """Whether `save_segmentor` wrote a file of this content."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def read_segmentor_file(path: str | Path) -> dict[str, Any]:
    """The content of a file that `save_segmentor` wrote, its weights compared with their checksum.

    Returns:
        `format`, `version`, `state_dict` (the network's own keys), `spec`, `classes`, `palette`, `extra`.

    Raises:
        InputError: as `read_tensors`; a bare state dict; a file of a later version, or incomplete, or damaged.
    """
    content = read_tensors(path)
    if not is_segmentor_file(content):
        raise InputError(
            f"{path} is not a segmentor file: it does not say which network it belongs to. Bare weights need"
            " the network's options: build_segmentor(..., checkpoint=path), or a config."
        )
    if content.get("version") != VERSION:
        raise InputError(
            f"{path} is a segmentor file of version {printable(content.get('version'), 20)}; this release reads version"
            f" {VERSION}. Install the release that wrote it, or a later one."
        )
    file = validated(_File, content, f"{path} is an incomplete segmentor file")
    described = {"source", "num_classes"} <= set(file.spec) and isinstance(file.spec["source"], str)
    if not described or not all(isinstance(value, Tensor) for value in file.state_dict.values()):
        raise InputError(
            f"{path} is an incomplete segmentor file: its spec lacks source or num_classes, or its state_dict holds"
            " something else than tensors. Write it again."
        )
    if digest(file.state_dict) != file.sha256:
        raise InputError(f"{path} is damaged: its weights are not those that were saved. Take another copy.")
    return content


def described(spec: Mapping[str, Any]) -> str:
    """A stored network in words, such as `smp Unet resnet18, with fewer channels`."""
    of = spec.get("of", spec)
    parts = (str(of[key]) for key in ("source", "arch", "encoder_name", "factory", "path") if key in of)
    return printable(" ".join(parts)) + (", with fewer channels" if of is not spec else "")


def state_hash(module: nn.Module) -> str:
    """SHA-256 over a module's state (sorted names, types, shapes, bytes), in hexadecimal.

    The same on any device. Of a segmentor, the network's own names count, so it equals that of the plain
    network.
    """
    return digest(module.network.state_dict() if isinstance(module, Segmentor) else module.state_dict())


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
