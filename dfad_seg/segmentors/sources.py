"""Where networks come from: one builder per source, one table; networks and files that name a line of it."""

import dataclasses
import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from dfad_seg.common.errors import TRUST_ADVICE, InputError, choose, printable
from dfad_seg.common.tensors import read_tensors
from dfad_seg.common.values import Channels, FileName, options, plain, validated
from dfad_seg.segmentors.base import Segmentor
from dfad_seg.segmentors.base import freeze as freeze_segmentor
from dfad_seg.segmentors.cut import CutOptions, StoredCut, narrowed
from dfad_seg.segmentors.kinds import WEIGHT_OPTIONS, Contract, Network, Source, SourceOptions
from dfad_seg.segmentors.mmseg_files import recorded_classes, runs_code
from dfad_seg.segmentors.mmseg_source import MmsegOptions, build_mmseg
from dfad_seg.segmentors.programs import FactoryOptions, ProgramOptions, build_factory, open_program
from dfad_seg.segmentors.saved import read_segmentor_file
from dfad_seg.segmentors.smp_source import SmpOptions, build_smp
from dfad_seg.segmentors.torchvision_source import TorchvisionOptions, build_torchvision
from dfad_seg.segmentors.transformers_source import TransformersOptions, build_transformers
from dfad_seg.segmentors.weights import load_state, load_weights


@options
class SavedOptions:
    """A network file of this program: `student.pt` or `teacher.pt` of a run. It knows its architecture and classes."""

    checkpoint: FileName
    """The file."""
    trust: bool = False
    """Allow the file to name a Python factory, a program, or a part of another package: that is code."""


def build_cut(chosen: StoredCut, *, num_classes: int) -> Network:
    """The network that a cut student was cut from, narrowed; raises InputError if it cannot be built or narrowed."""
    if chosen.of.get("source") in (None, "cut", "saved"):
        raise InputError("a cut network's of must be the options of the whole network that it was cut from.")
    whole = build_segmentor(**{str(name): value for name, value in chosen.of.items() if name not in WEIGHT_OPTIONS})
    return narrowed(whole, chosen.widths)


SOURCES: dict[str, Source] = {
    "smp": Source(SmpOptions, build_smp),
    "torchvision": Source(TorchvisionOptions, build_torchvision),
    "transformers": Source(TransformersOptions, build_transformers),
    "torchscript": Source(ProgramOptions, partial(open_program, "torchscript"), lambda spec: True, knows_range=False),
    "torch_export": Source(ProgramOptions, partial(open_program, "torch_export"), lambda spec: True, knows_range=False),
    "factory": Source(FactoryOptions, build_factory, lambda spec: True, knows_range=False),
    "mmseg": Source(MmsegOptions, build_mmseg, runs_code),
    "saved": Source(SavedOptions, lambda chosen, num_classes: load_segmentor(chosen.checkpoint, trust=chosen.trust)),
    "cut": Source(StoredCut, build_cut, lambda spec: spec_runs_code(spec.get("of"))),
}

STUDENTS: dict[str, Source] = SOURCES | {"cut": Source(CutOptions, build_cut)}
"""What a config's student may be: to be cut, it does not say widths, but a budget. `cut` makes it, from the teacher."""


def build_segmentor(source: str, *, num_classes: int, **values: Any) -> Segmentor:
    """Build a segmentor.

    The random weights depend on torch's global generator alone, so `torch.manual_seed` fixes them. Nothing is
    downloaded unless `encoder_weights` asks for it.

    Args:
        source: a key of `SOURCES`.
        values: the options of the source, such as `SmpOptions`.

    Raises:
        InputError: unknown source or option, missing option, bad value, unreadable or unfitting file, a network that
            does not answer as it should.
    """
    kind: Source = choose(SOURCES, source, "segmentor source")
    validated(Channels, num_classes, "segmentor: num_classes")  # type: ignore[arg-type]
    chosen: Any = validated(kind.options, values, f"segmentor source '{source}'")
    built = kind.build(chosen, num_classes=num_classes)
    segmentor = built if isinstance(built, Segmentor) else _wrapped(built, source, kind, num_classes, chosen)
    if segmentor.num_classes != num_classes:
        raise InputError(
            f"source '{source}' gives a segmentor of {segmentor.num_classes} classes, but num_classes is {num_classes}."
        )
    if not isinstance(chosen, SourceOptions):
        return segmentor
    if isinstance(built, Segmentor):
        same = ("in_channels",) if chosen.in_channels == built.in_channels else ()  # data sets are read by it
        ignored = [name for name in values if name in _CONTRACT and name not in same]
        if ignored:
            raise InputError(
                f"the factory returns a ready Segmentor; the option '{ignored[0]}' would be ignored."
                " Remove it, or return the plain network."
            )
    if chosen.checkpoint is not None:
        content = read_tensors(chosen.checkpoint)
        load_weights(segmentor, chosen.checkpoint, chosen.checkpoint_key, content=content)
        classes, palette = recorded_classes(content) if source == "mmseg" and chosen.classes is None else (None, None)
        # What a checkpoint was trained on counts, whatever data set the config names by now.
        if classes is not None and len(classes) == num_classes:
            segmentor.classes, segmentor.palette = tuple(classes), palette
    given = _given(chosen)
    if isinstance(built, Network):
        if built.settle is not None:
            built.settle(segmentor)
        if built.spec is not None:
            given = {name: value for name, value in given.items() if name in _COMMON} | built.spec
    segmentor.spec = {"source": source, "num_classes": num_classes, **given}
    return segmentor


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
    # A file from elsewhere may name further files or downloads; its own weights are all that is wanted.
    spec = {str(name): value for name, value in content["spec"].items() if name not in WEIGHT_OPTIONS}
    if spec_runs_code(spec) and not trust:
        raise InputError(
            f"{path} is rebuilt by the source '{printable(spec['source'], 40)}', which runs code that the file names."
            f" {TRUST_ADVICE}"
        )
    with _Budget(4 * sum(value.numel() * value.element_size() for value in state.values()) + _SPARE, path):
        try:
            segmentor = build_segmentor(**spec)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    if content["classes"] is not None:
        if len(content["classes"]) != segmentor.num_classes:
            raise InputError(f"{path} names {len(content['classes'])} classes and answers {segmentor.num_classes}.")
        segmentor.classes = tuple(content["classes"])
    segmentor.palette = content["palette"]
    load_state(segmentor.network, state, path, num_classes=segmentor.num_classes)
    segmentor.eval()
    return freeze_segmentor(segmentor) if freeze else segmentor


def spec_runs_code(spec: Any) -> bool:
    """Whether rebuilding a stored network would run code that its file names."""
    source = spec.get("source") if isinstance(spec, Mapping) else None
    if source == "saved":
        raise InputError("a stored network is rebuilt by another file, which this program never writes.")
    kind: Source = choose(SOURCES, printable(source, 40), "segmentor source")
    return kind.runs_code(spec)


def is_cut_of(file: Path, teacher: Segmentor) -> bool:
    """Whether a cut student's file names no other code than the teacher that the user's own config names."""
    spec = teacher.spec or {}
    own = {name: value for name, value in spec.get("of", spec).items() if name not in WEIGHT_OPTIONS}
    stored = read_segmentor_file(file)["spec"].get("of")
    return json.dumps(stored, sort_keys=True, default=str) == json.dumps(own, sort_keys=True, default=str)


_CONTRACT = tuple(field.name for field in dataclasses.fields(Contract))
_COMMON = tuple(field.name for field in dataclasses.fields(SourceOptions))


def _given(options: Any) -> dict[str, Any]:
    """Options that are not None, as plain values; what a factory takes stays as it is."""
    found = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    found = {name: plain(value) if dataclasses.is_dataclass(value) else value for name, value in found.items()}
    return {name: value for name, value in found.items() if value is not None}


def _wrapped(built: Network, source: str, kind: Source, num_classes: int, options: SourceOptions) -> Segmentor:
    if not kind.knows_range and not (options.mean and options.std):
        raise InputError(
            f"segmentor source '{source}' needs the options mean and std: the network itself does not say how its"
            " images were normalised. Give what it was trained with (ImageNet: mean [0.485, 0.456, 0.406], std [0.229,"
            " 0.224, 0.225]), or mean [0, 0, 0] and std [1, 1, 1] if it takes RGB in [0, 1]."
        )
    contract = {name: value for name, value in _given(options).items() if name in _CONTRACT}
    segmentor = Segmentor(built.module, num_classes=num_classes, **{**built.contract, **contract})
    segmentor.palette = built.palette
    segmentor.fixed_size = built.fixed_size
    return segmentor


_SPARE = 2**28
"""Bytes that a stored network may need beyond four times its file, while it is built."""
_MAKERS = {"empty", "zeros", "ones", "full", "rand", "randn", "empty_strided", "arange"}


class _Budget(TorchDispatchMode):
    """Inside, tensors of more than `limit` bytes in all are refused: options in a small file cannot fill the memory."""

    def __init__(self, limit: int, path: str | Path) -> None:
        super().__init__()
        self.left, self.limit, self.path = limit, limit, path

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # What makes memory: torch.empty and the like, before anything is written into it.
        if func.overloadpacket.__name__ in _MAKERS:
            sizes = args[0] if args and isinstance(args[0], (list, tuple)) else [args[0] if args else 1]
            self.left -= 4 * math.prod(map(int, sizes))
            if self.left < 0:
                raise InputError(f"{self.path} holds far fewer weights than the network that it describes.")
        return func(*args, **(kwargs or {}))
