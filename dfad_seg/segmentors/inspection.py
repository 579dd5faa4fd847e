"""What a file of weights looks like, without running anything in it: source, classes, normalisation, by its keys."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfad_seg.common.errors import InputError
from dfad_seg.common.tensors import read_tensors
from dfad_seg.segmentors.containers import find_state_dict
from dfad_seg.segmentors.saved import FORMAT
from dfad_seg.segmentors.sources import build_segmentor

# Encoders that are tried on smp's checkpoints, in the order of how common they are.
SMP_ENCODERS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "mobilenet_v2"),
    *("resnext50_32x4d", "se_resnet50", "se_resnext50_32x4d", "vgg16_bn", "densenet121"),
    *(f"efficientnet-b{i}" for i in range(8)),
    *("mit_b0", "mit_b1", "mit_b2", "mit_b3", "mit_b4", "mit_b5"),
    *("tu-mobilenetv3_small_100", "tu-mobilenetv3_small_075", "tu-mobilenetv3_small_050", "tu-mobilenetv3_large_100"),
    *("tu-resnet18", "tu-resnet34", "tu-resnet50", "tu-resnet101", "tu-efficientnet_b0", "tu-mobilenetv2_100"),
)

_MAX_DESCRIPTION = 1 << 20  # bytes; ours have some thousand


@dataclass
class Inspected:
    """What a file looks like.

    Attributes:
        kind: what kind of file it is, in words.
        source: a key of `SOURCES`, `saved`, or None where no source takes it as it is.
        options: of this source, as far as they can be read off; `checkpoint` or `path` among them.
        num_classes: None where the file does not show it.
        classes: their names, where the file has them.
        parameters, batch_norms: how many, where the file shows its weights.
        hints: what else there is to know, one sentence each.
        exact: whether the network of `source` and `options` fits the file's keys and shapes.
    """

    kind: str
    source: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    classes: tuple[str, ...] | None = None
    parameters: int | None = None
    batch_norms: int | None = None
    hints: list[str] = field(default_factory=list)
    exact: bool = False


def inspect_file(path: str | Path, *, trust: bool = False) -> Inspected:
    """Look at a checkpoint, a TorchScript or a torch.export file, or a file that `save_segmentor` wrote.

    Args:
        trust: load a TorchScript or torch.export file, which is a program, to see more of it.

    Raises:
        InputError: no such file, a damaged one, or one with Python objects inside.
    """
    path = Path(path)
    program = _program_kind(path)
    if program is not None:
        return _inspect_program(path, program, trust)
    content = read_tensors(path)
    if isinstance(content, dict) and content.get("format") == FORMAT:
        return _inspect_own(path, content)
    return _inspect_weights(path, content)


def _program_kind(path: Path) -> str | None:
    if not path.is_file() or not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    inner = [name.partition("/")[2] for name in names]
    if any(name.endswith("constants.pkl") for name in names) and any(name.startswith("code/") for name in inner):
        return "torchscript"
    exported = ("archive_format", "serialized_exported_program.json", "models/model.json")
    return "torch_export" if any(name.endswith(exported) for name in names) else None


def _inspect_program(path: Path, source: str, trust: bool) -> Inspected:
    what = "TorchScript" if source == "torchscript" else "torch.export"
    found = Inspected(f"a {what} file: a program with its weights", source, {"path": str(path), "trust": True})
    described = _description(path)
    if described is None:
        found.hints.append("it does not say how its images were normalised: mean and std are a guess (ImageNet's)")
        found.options |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    else:
        found.hints.append("written by this program: it takes RGB in [0, 1], and its normalisation is inside")
        found.options |= {"mean": [0, 0, 0], "std": [1, 1, 1]}
        found.num_classes = described.get("num_classes")
        found.classes = tuple(described["classes"]) if described.get("classes") else None
    if not trust:
        found.hints.append("it was not loaded, as that runs its code; --trust does, if you trust where it comes from")
        return found
    # The class count is what its answer has: the segmentor only compares it, so any number serves here.
    network = build_segmentor(source, num_classes=1, **found.options).network
    answer = _answer(network)
    found.exact = answer is not None
    if isinstance(answer, Tensor) and answer.ndim == 4:
        found.num_classes = answer.shape[1]
        if answer.min() >= 0 and torch.allclose(answer.sum(1), torch.ones(1), atol=1e-3):
            found.hints.append("its answers are probabilities, not logits: take the softmax out before you export it")
    else:
        found.hints.append("it did not answer a 128x128 image by logits (N, C, h, w): it may need another size")
    found.parameters = sum(parameter.numel() for parameter in network.parameters())
    found.batch_norms = sum(name.endswith("running_mean") for name in network.state_dict())
    return found


def _description(path: Path) -> dict[str, Any] | None:
    """What `dfad_seg.export` put beside a program; it is plain JSON."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith("extra/segmentor.json") and entry.file_size <= _MAX_DESCRIPTION:
                try:
                    found = json.loads(archive.read(entry))
                except (ValueError, zipfile.BadZipFile, RecursionError):
                    return None
                return found if isinstance(found, dict) else None
    return None


def _answer(network: torch.nn.Module) -> Tensor | None:
    try:
        with torch.no_grad():
            answer = network(torch.zeros(1, 3, 128, 128))
    except (RuntimeError, InputError):
        return None
    if isinstance(answer, Mapping):
        answer = answer.get("out", answer.get("logits"))
    return answer if isinstance(answer, Tensor) else None


def _inspect_own(path: Path, content: dict[str, Any]) -> Inspected:
    spec = content["spec"]
    architecture = " ".join(str(spec[key]) for key in ("arch", "encoder_name", "factory", "path") if key in spec)
    found = Inspected(f"a file of this program: {spec['source']} {architecture}", "saved", {"checkpoint": str(path)})
    found.num_classes = spec["num_classes"]
    found.classes = tuple(content["classes"]) if content["classes"] else None
    _count(found, content["state_dict"])
    if "mean" in spec:
        found.hints.append(
            f"normalisation: mean {_short(spec['mean'])}, std {_short(spec['std'])}, input_scale"
            f" {spec.get('input_scale', 1):g}, {spec.get('channel_order', 'rgb')}"
        )
    found.exact = spec["source"] not in ("factory", "torchscript", "torch_export")
    return found


def _inspect_weights(path: Path, content: Any) -> Inspected:
    state = find_state_dict(content, path)
    tops = {key.split(".")[0] for key in state}
    if {"encoder", "segmentation_head"} <= tops:
        found = _smp(state)
    elif {"backbone", "decode_head"} <= tops:
        found = _mmseg(state, content)
    elif {"backbone", "classifier"} <= tops:
        found = _torchvision(state)
    elif tops & {"conv_stem", "conv1", "features", "patch_embed"}:
        found = Inspected("weights of a classification network: an encoder, no segmentation network")
        found.hints.append("a student can begin with it: student.encoder_checkpoint names this file")
    else:
        found = Inspected("weights of a network that is none of the known ones")
        found.hints.append("build it by your own code: source factory, factory: package.module:callable")
        found.source = "factory"
        found.options = {"factory": "my_package.my_module:build_network"}
    if found.source is not None:
        found.options["checkpoint"] = str(path)
    _count(found, state)
    return found


def _smp(state: Mapping[str, Tensor]) -> Inspected:
    head = state["segmentation_head.0.weight"]
    found = Inspected("weights of segmentation_models_pytorch", "smp", {}, int(head.shape[0]))
    for options in _smp_candidates(state, int(head.shape[1])):
        if _fits("smp", found.num_classes or 1, options, state):
            found.options, found.exact = options, True
            found.hints.append(
                "mean and std are a guess: ImageNet's, as smp's encoders have; give your own if they differ"
            )
            return found
    found.options = {"arch": "DeepLabV3Plus", "encoder_name": "resnet50"}
    found.hints.append("arch and encoder_name are placeholders: no usual combination fits; give what it was built with")
    return found


def _smp_candidates(state: Mapping[str, Tensor], head_channels: int) -> Iterable[dict[str, Any]]:
    """Architectures whose decoder has this file's keys, on encoders that could be meant."""
    decoder = {key for key in state if key.startswith("decoder.")}
    if any(".aspp." in key for key in decoder):
        arch = "DeepLabV3Plus" if any(key.startswith("decoder.block2.") for key in decoder) else "DeepLabV3"
        options: dict[str, Any] = {} if head_channels == 256 else {"decoder_channels": head_channels}
    elif any(key.startswith("decoder.aspp.") or key.startswith("decoder.0.convs.") for key in decoder):
        arch, options = "DeepLabV3", {} if head_channels == 256 else {"decoder_channels": head_channels}
    elif any(key.startswith("decoder.p5.") for key in decoder):
        arch, options = "FPN", {}
    elif any(key.startswith("decoder.psp.") for key in decoder):
        arch, options = "PSPNet", {}
    elif any(key.startswith("decoder.blocks.x_") for key in decoder):
        arch, options = "UnetPlusPlus", {}
    elif any(key.startswith("decoder.mlp_stage.") for key in decoder):
        arch, options = "Segformer", {}
    elif any(key.startswith("decoder.gau") for key in decoder):
        arch, options = "PAN", {}
    else:
        arch, options = "Unet", {}
    own = {key.removeprefix("encoder.") for key in state if key.startswith("encoder.")}
    timm_made = any(key.startswith("model.") for key in own)
    for encoder in SMP_ENCODERS:
        mix_transformer = any(key.startswith("patch_embed1.") for key in own)
        if encoder.startswith("tu-") == timm_made and encoder.startswith("mit_") == mix_transformer:
            yield {"arch": arch, "encoder_name": encoder, **options}


def _torchvision(state: Mapping[str, Tensor]) -> Inspected:
    blocks = {key.split(".")[2] for key in state if key.startswith("backbone.layer3.")}
    backbone = {6: "resnet50", 23: "resnet101"}.get(len(blocks), "mobilenet_v3_large")
    if any(key.startswith("classifier.0.convs.") for key in state):
        names = [f"deeplabv3_{backbone}", "deeplabv3_mobilenetv2"]
        head = "classifier.4.weight"
    elif any(key.startswith("classifier.cbr.") for key in state):
        names, head = ["lraspp_mobilenet_v3_large"], "classifier.high_classifier.weight"
    else:
        names, head = [f"fcn_{backbone}"], "classifier.4.weight"
    found = Inspected("weights of torchvision", "torchvision", {"arch": names[0]})
    if head in state:
        found.num_classes = int(state[head].shape[0])
    auxiliary = {"aux_loss": True} if any(key.startswith("aux_classifier.") for key in state) else {}
    for name in names:
        options = {"arch": name, **auxiliary}
        if _fits("torchvision", found.num_classes or 1, options, state):
            found.options, found.exact = options, True
    found.hints.append(
        "mean and std are a guess: ImageNet's, as torchvision's own weights have; give your own if they differ"
        if found.exact
        else "arch is a guess that does not fit exactly: give what it was built with"
    )
    return found


def _mmseg(state: Mapping[str, Tensor], content: Any) -> Inspected:
    found = Inspected("weights of MMSegmentation")
    head = state.get("decode_head.conv_seg.weight", state.get("decode_head.linear_pred.weight"))
    found.num_classes = None if head is None else int(head.shape[0])
    meta = content.get("meta") if isinstance(content, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    dataset = meta.get("dataset_meta")
    names = dataset.get("classes") if isinstance(dataset, Mapping) else meta.get("CLASSES")
    if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
        found.classes = tuple(names)
    for key in ("mean", "std", "bgr_to_rgb", "to_rgb"):
        match = re.search(rf"\b{key}\s*=\s*(\[[^\]]*\]|True|False)", str(meta.get("cfg", "")))
        if match:
            found.hints.append(f"its config says {key} = {match.group(1)}, in units of 0-255")
    found.hints.append("its architecture is in its config file: see docs/bring_your_own.md on MMSegmentation")
    return found


def _fits(source: str, num_classes: int, options: dict[str, Any], state: Mapping[str, Tensor]) -> bool:
    """Whether the network has exactly these keys and shapes; built without memory for its weights."""
    try:
        with torch.device("meta"):
            own = build_segmentor(source, num_classes=num_classes, **options).network.state_dict()
    except (InputError, NotImplementedError, RuntimeError):
        try:  # some networks compute with numbers while they are built
            own = build_segmentor(source, num_classes=num_classes, **options).network.state_dict()
        except InputError:
            return False
    shapes = {key: value.shape for key, value in own.items() if not key.endswith("num_batches_tracked")}
    theirs = {key: value.shape for key, value in state.items() if not key.endswith("num_batches_tracked")}
    return shapes == theirs


def _count(found: Inspected, state: Mapping[str, Tensor]) -> None:
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    found.parameters = sum(value.numel() for key, value in state.items() if not key.endswith(statistics))
    found.batch_norms = sum(key.endswith("running_mean") for key in state)


def _short(values: Iterable[float]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"
