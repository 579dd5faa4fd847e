"""Segmentor files: a network with what is needed to rebuild it, and hashes that identify weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dfad_seg.common.errors import InputError, printable
from dfad_seg.common.files import write_torch
from dfad_seg.common.reading import open_regular
from dfad_seg.common.tensors import digest, read_tensors
from dfad_seg.common.values import options, validated
from dfad_seg.segmentors import base
from dfad_seg.segmentors.base import Segmentor
from dfad_seg.segmentors.contract import Contract
from dfad_seg.segmentors.kinds import WEIGHT_OPTIONS
from dfad_seg.segmentors.sources import SOURCES, build_segmentor, spec_runs_code
from dfad_seg.segmentors.weights import load_state

FORMAT = "dfad_seg/segmentor"
VERSION = 1
_SPARE = 2**28
"""Bytes that a stored network may need beyond four times its file, while it is built."""


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
    sha256: str | None = None
    """`state_hash` of the state; files of the first release have none."""


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
    takes_contract = issubclass(SOURCES[spec["source"]].options, Contract) and (
        spec["source"] != "factory" or "mean" in spec
    )
    state = {key: value.detach().cpu() for key, value in segmentor.network_state_dict().items()}
    content = {
        "format": FORMAT,
        "version": VERSION,
        "state_dict": state,
        "spec": _plain(
            {**kept, "num_classes": segmentor.num_classes, **(segmentor.preprocessing() if takes_contract else {})},
            "spec",
        ),
        "classes": list(classes) if classes is not None else None,
        "palette": [[int(v) for v in colour] for colour in palette] if palette is not None else None,
        "extra": _plain(extra or {}, "extra"),
        "sha256": digest(state),
    }
    write_torch(path, content)


def read_segmentor_file(path: str | Path) -> dict[str, Any]:
    """The content of a file that `save_segmentor` wrote, its weights compared with their checksum.

    Returns:
        `format`, `version`, `state_dict` (the network's own keys), `spec`, `classes`, `palette`, `extra`.

    Raises:
        InputError: as `read_tensors`; a bare state dict; a file of a later version, or incomplete, or damaged.
    """
    content = read_tensors(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
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
    if not {"source", "num_classes"} <= set(file.spec) or not isinstance(file.spec["source"], str):
        raise InputError(
            f"{path} is an incomplete segmentor file: its spec lacks source or num_classes. Write it again."
        )
    odd = [key for key, value in file.state_dict.items() if not isinstance(value, Tensor)]
    if odd:
        raise InputError(f"{path}: {printable(odd[0], 80)} in its state_dict is no tensor. Write it again.")
    if file.sha256 is not None and digest(file.state_dict) != file.sha256:
        raise InputError(f"{path} is damaged: its weights are not those that were saved. Take another copy.")
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
    state = content["state_dict"]
    with _Budget(4 * sum(value.numel() * value.element_size() for value in state.values()) + _SPARE, path):
        segmentor = rebuild(content["spec"], str(path), trust=trust)
    if content["classes"] is not None:
        if len(content["classes"]) != segmentor.num_classes:
            raise InputError(f"{path} names {len(content['classes'])} classes and answers {segmentor.num_classes}.")
        segmentor.classes = tuple(content["classes"])
    segmentor.palette = content["palette"]
    load_state(segmentor.network, state, path, num_classes=segmentor.num_classes)
    segmentor.eval()
    return base.freeze(segmentor) if freeze else segmentor


def rebuild(spec: Mapping[str, Any], path: str, *, trust: bool) -> Segmentor:
    """The network of a stored spec, with random weights; the options pass the same checks as a config's.

    Raises:
        InputError: wrong options, or a source that runs code without `trust`; `path` is for the message.
    """
    # A file from elsewhere may name further files or downloads; its own weights are all that is wanted.
    kept = {str(name): value for name, value in spec.items() if name not in WEIGHT_OPTIONS}
    if kept["source"] == "saved":
        raise InputError(f"{path} is rebuilt by another file, which this program never writes.")
    if spec_runs_code(kept) and not trust:
        raise InputError(
            f"{path} is rebuilt by the source '{printable(kept['source'], 40)}', which runs code that the file names."
            " If you trust the file, pass trust=True."
        )
    try:
        return build_segmentor(**kept)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


class _Budget(TorchDispatchMode):
    """Inside, tensors of more than `limit` bytes in all are refused: options in a small file cannot fill the memory."""

    def __init__(self, limit: int, path: str | Path) -> None:
        super().__init__()
        self.left, self.limit, self.path = limit, limit, path

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # What makes memory: torch.empty and the like, before anything is written into it.
        if func.overloadpacket.__name__ in (
            "empty",
            "zeros",
            "ones",
            "full",
            "rand",
            "randn",
            "empty_strided",
            "arange",
        ):
            sizes = args[0] if args and isinstance(args[0], (list, tuple)) else [args[0] if args else 1]
            count = 1
            for size in sizes:
                count *= int(size)
            self.left -= 4 * count
            if self.left < 0:
                raise InputError(f"{self.path} holds far fewer weights than the network that it describes.")
        return func(*args, **(kwargs or {}))


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        InputError: the file cannot be read.
    """
    made = hashlib.sha256()
    try:
        with open_regular(path) as handle:
            while block := handle.read(1 << 20):
                made.update(block)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    return made.hexdigest()


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
