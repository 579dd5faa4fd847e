"""Where networks come from: one builder per source, one table."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from dfad_seg.common.errors import InputError, choose, nearest
from dfad_seg.common.tensors import read_tensors
from dfad_seg.segmentors.base import Segmentor
from dfad_seg.segmentors.cut import build_cut
from dfad_seg.segmentors.factory_source import build_factory
from dfad_seg.segmentors.mmseg_source import build_mmseg, recorded_classes
from dfad_seg.segmentors.opaque_sources import build_torch_export, build_torchscript
from dfad_seg.segmentors.smp_source import build_smp
from dfad_seg.segmentors.torchvision_source import build_torchvision
from dfad_seg.segmentors.weights import find_state_dict, load_state

# A source: (num_classes, its own options) -> (network, the Segmentor options that this network needs). Among the latter
# may stand `palette`, and `spec`: its own options as a saved network stores them, where those given name files.
Source = Callable[..., tuple[nn.Module, dict[str, Any]]]

SOURCES: dict[str, Source] = {
    "smp": build_smp,
    "torchvision": build_torchvision,
    "torchscript": build_torchscript,
    "torch_export": build_torch_export,
    "factory": build_factory,
    "mmseg": build_mmseg,
    "cut": build_cut,
}

# Options that every source takes: those of Segmentor, and `checkpoint`.
COMMON_OPTIONS = tuple(
    name for name in inspect.signature(Segmentor).parameters if name not in ("network", "num_classes")
) + ("checkpoint",)

# Sources whose networks say nothing about their normalisation: a wrong guess would be silent.
_NORMALISATION_UNKNOWN = ("torchscript", "torch_export", "factory")


def build_segmentor(source: str, *, num_classes: int, **options: Any) -> Segmentor:
    """Build a segmentor.

    The random weights depend on torch's global generator alone, so `torch.manual_seed` fixes them. Nothing is
    downloaded unless `encoder_weights` asks for it.

    Args:
        source: a key of `SOURCES`.
        num_classes: number of classes of the logits.
        options: the source's own (see its builder), those of `Segmentor` (mean, std, input_scale,
            channel_order, stride, output, align_corners, classes), and `checkpoint`: a file of weights,
            loaded strictly. `mean` and `std` default to ImageNet's for smp and torchvision; the other
            sources need them.

    Raises:
        InputError: unknown source or option, missing option, bad value, unreadable or unfitting file.
    """
    build = choose(SOURCES, source, "segmentor source")
    _check_option_names(source, build, options)
    _check_option_types(options)
    common = {name: value for name, value in options.items() if name in COMMON_OPTIONS}
    own = {name: value for name, value in options.items() if name not in COMMON_OPTIONS}
    checkpoint = common.pop("checkpoint", None)
    network, defaults = build(num_classes=num_classes, **own)
    palette, rebuilt_from = defaults.pop("palette", None), defaults.pop("spec", own)
    if isinstance(network, Segmentor):
        segmentor = _take_segmentor(network, num_classes, common)
    else:
        if source in _NORMALISATION_UNKNOWN:
            _require_normalisation(source, common)
        segmentor = Segmentor(network, num_classes=num_classes, **{**defaults, **common})
        segmentor.palette = palette
    if checkpoint is not None:
        content = read_tensors(checkpoint)
        load_state(segmentor.network, find_state_dict(content, checkpoint), checkpoint, num_classes=num_classes)
        if source == "mmseg" and "classes" not in common:
            _take_classes(segmentor, content)
    given = {name: value for name, value in options.items() if name in COMMON_OPTIONS}
    segmentor.spec = {"source": source, "num_classes": num_classes, **rebuilt_from, **given}
    return segmentor


def _take_classes(segmentor: Segmentor, content: Any) -> None:
    # What a checkpoint was trained on counts, whatever data set the config names by now.
    classes, palette = recorded_classes(content)
    if classes is not None and len(classes) == segmentor.num_classes:
        segmentor.classes = tuple(classes)
        segmentor.palette = palette


def source_options(source: str) -> tuple[str, ...]:
    """The names of all options that `source` takes, without `num_classes`."""
    return _own_options(choose(SOURCES, source, "segmentor source")) + COMMON_OPTIONS


def _own_options(build: Source) -> tuple[str, ...]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(build).parameters.values()
    return tuple(p.name for p in parameters if p.kind in named and p.name != "num_classes")


def _check_option_names(source: str, build: Source, options: dict[str, Any]) -> None:
    # A builder with **kwargs (smp: the options depend on the architecture) checks the rest itself.
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(build).parameters.values())
    known = _own_options(build) + COMMON_OPTIONS
    for name in options:
        if name not in known and not open_ended:
            raise InputError(
                f"segmentor source '{source}' has no option '{name}'.{nearest(name, known)}"
                f" Known: {', '.join(sorted(known))}."
            )
    for parameter in inspect.signature(build).parameters.values():
        needed = parameter.default is inspect.Parameter.empty and parameter.name in known
        if needed and parameter.name not in options:
            raise InputError(f"segmentor source '{source}' needs the option '{parameter.name}'.")


def _check_option_types(options: dict[str, Any]) -> None:
    for name in ("checkpoint", "encoder_checkpoint", "path"):
        if not isinstance(options.get(name, ""), (str, Path, type(None))):
            raise InputError(f"{name} is {options[name]!r}; it must be the path of a file.")
    classes = options.get("classes")
    if classes is not None and not (
        isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes)
    ):
        raise InputError(f"classes is {classes!r}; it must be a list of names.")


def _require_normalisation(source: str, common: dict[str, Any]) -> None:
    missing = [name for name in ("mean", "std") if name not in common]
    if missing:
        raise InputError(
            f"segmentor source '{source}' needs the option{'s' if len(missing) > 1 else ''}"
            f" {' and '.join(missing)}: the network itself does not say how its images were normalised. Give"
            " what it was trained with (ImageNet: mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225]), or"
            " mean [0, 0, 0] and std [1, 1, 1] if it takes RGB in [0, 1]."
        )


def _take_segmentor(segmentor: Segmentor, num_classes: int, common: dict[str, Any]) -> Segmentor:
    if common:
        raise InputError(
            f"the factory returns a ready Segmentor; the option '{next(iter(common))}' would be ignored."
            " Remove it, or return the plain network."
        )
    if segmentor.num_classes != num_classes:
        raise InputError(
            f"the factory returns a segmentor of {segmentor.num_classes} classes, but num_classes is {num_classes}."
        )
    return segmentor
