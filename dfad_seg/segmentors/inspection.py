"""What a file of weights looks like, without running anything in it: source, classes, normalisation, by its keys."""

import itertools
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfad_seg.common.errors import TRUST_ADVICE, InputError, printable
from dfad_seg.common.reading import open_zip, read_json
from dfad_seg.common.tensors import read_tensors
from dfad_seg.common.values import validated
from dfad_seg.segmentors.base import Segmentor
from dfad_seg.segmentors.containers import find_state_dict
from dfad_seg.segmentors.inspection_smp import Inspected, fits, in_channels, inspect_smp, unusual
from dfad_seg.segmentors.kinds import IMAGENET_MEAN, IMAGENET_STD, SIGMOID
from dfad_seg.segmentors.mmseg_files import recorded_classes
from dfad_seg.segmentors.saved import described, is_segmentor_file, read_segmentor_file
from dfad_seg.segmentors.settling import smooth_noise
from dfad_seg.segmentors.sources import SOURCES, build_segmentor, spec_runs_code

_TRANSFORMERS = {"beit", "data2vec_vision", "dpt", "mobilenet_v2", "mobilevit", "mobilevitv2", "segformer"}
_TORCHVISION: list[dict[str, Any]] = [{"arch": f"deeplabv3_{name}"} for name in ("resnet50", "resnet101")]
_TORCHVISION += [{"arch": f"fcn_{name}"} for name in ("resnet50", "resnet101")]
_TORCHVISION += [{"arch": f"{name}_mobilenet_v3_large"} for name in ("deeplabv3", "lraspp")]
_TORCHVISION += [{"arch": "deeplabv3_mobilenetv2", "output_stride": stride} for stride in (16, 8)]
_MAX_DESCRIPTION = 1 << 20  # bytes; ours have some thousand
_IMAGENET = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
_GUESSED = "mean and std are a guess: ImageNet's for RGB, as encoders mostly have; give your own if they differ"


def inspect_file(
    path: str | Path, *, trust: bool = False, key: str | None = None, factory: str | None = None
) -> Inspected:
    """Look at a checkpoint, a TorchScript or a torch.export file, a file that `save_segmentor` wrote, or a folder of
    `save_pretrained`.

    Args:
        key: which weights of a file that has several; the option `checkpoint_key`.
        trust: load a TorchScript or torch.export file, which is a program, to see more of it.
        factory: `package.module:callable` that builds the network of the weights; it is called.

    Raises:
        InputError: no such file, a damaged one, or one with Python objects inside.
    """
    path = Path(path)
    if path.name == "model.safetensors" and (path.parent / "config.json").is_file():
        path = path.parent  # which says what the weights are of
    if path.is_dir():
        return _inspect_folder(path)
    program = _program(path)
    if program is not None:
        return _inspect_program(path, *program, trust)
    content = read_tensors(path)
    if is_segmentor_file(content):
        return _inspect_own(path)
    return _inspect_weights(path, content, key, factory)


def _inspect_folder(path: Path) -> Inspected:
    """A folder that `save_pretrained` of smp or of transformers wrote."""
    config = read_json(path / "config.json", f"the folder {path}")
    config = config if isinstance(config, dict) else {}
    if "_model_class" in config:
        found = Inspected(f"a folder of smp: {printable(config['_model_class'])}", "smp")
        channels, count = config.get("in_channels"), config.get("classes")
    elif "model_type" in config:
        found = Inspected(f"a folder of transformers: {printable(config['model_type'])}", "transformers")
        labels = config.get("id2label")
        channels, count = config.get("num_channels"), len(labels) if isinstance(labels, dict) else 2  # its default
    else:
        raise InputError(f"{path / 'config.json'} is neither smp's nor transformers': no save_pretrained wrote it.")
    found.options = unusual(channels, count) | {"pretrained": str(path)}
    if "mean" in found.options or not any(path.glob("*processor_config.json")):
        found.options = _IMAGENET | found.options
        found.hints.append(_GUESSED)
    if isinstance(count, int):
        found.num_classes, found.exact = max(2, count), True
        network = build_segmentor(found.source or "", num_classes=found.num_classes, **found.options)
        found.classes = network.classes
        _count(found, network.network.state_dict())
    return found


def _program(path: Path) -> tuple[str, dict[str, Any]] | None:
    """The source of a program, and what `dfad_seg.exporting` put beside it as plain JSON; None for other files."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return None
    with open_zip(path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        notes = [name for name in sizes if name.endswith("extra/segmentor.json") and sizes[name] <= _MAX_DESCRIPTION]
        described = json.loads(archive.read(notes[0])) if notes else {}
    described = described if isinstance(described, dict) else {}
    if any(name.endswith("constants.pkl") for name in sizes) and any("/code/" in name for name in sizes):
        return "torchscript", described
    exported = ("archive_format", "serialized_exported_program.json", "models/model.json")
    return ("torch_export", described) if any(name.endswith(exported) for name in sizes) else None


def _inspect_program(path: Path, source: str, described: dict[str, Any], trust: bool) -> Inspected:
    what = "TorchScript" if source == "torchscript" else "torch.export"
    found = Inspected(f"a {what} file: a program with its weights", source, {"path": str(path), "trust": True})
    if described:
        preprocessing = described.get("preprocessing")
        channels = preprocessing.get("in_channels") if isinstance(preprocessing, dict) else 3
        found.options |= unusual(channels)
        channels = found.options.get("in_channels", 3)
        found.options |= {"mean": [0] * channels, "std": [1] * channels}
        found.hints.append("written by this program: it takes values in [0, 1], and its normalisation is inside")
        if described.get("threshold"):
            found.options |= {"output": SIGMOID, "threshold": described["threshold"]}
        classes, count = described.get("classes"), described.get("num_classes")
        found.num_classes = count if isinstance(count, int) else None
        if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
            found.classes = tuple(classes)
    else:
        found.options |= _IMAGENET
        found.hints.append(_GUESSED)
    if not trust:
        found.hints.append(f"it was not loaded, as that runs its code. {TRUST_ADVICE}")
        return found
    _try(found)
    return found


def _try(found: Inspected) -> None:
    """Build a network whose weights do not say what it answers, and look at its answer."""
    source = found.source or ""
    kind = SOURCES[source]
    built = kind.build(validated(kind.options, found.options, source), num_classes=1)
    network = (built.network if isinstance(built, Segmentor) else built.module).eval()
    state = network.state_dict()
    _count(found, state)
    found.options |= {} if "in_channels" in found.options else unusual(in_channels(state))
    answer = _answer(network, found.options.get("in_channels", 3))
    if answer is None or answer.ndim != 4:
        what = "nothing" if answer is None else f"a tensor of shape {tuple(answer.shape)}"
        found.hints.append(f"it answers images of usual sizes by {what}, and logits (N, C, h, w) are needed")
        return
    found.num_classes, mask = max(2, answer.shape[1]), answer.shape[1] == 1
    if mask:
        found.hints.append("it answers one channel: a mask, of two classes, background and object")
        found.options |= {"output": SIGMOID}
    total = torch.ones_like(answer[:, :1])
    if answer.min() >= 0 and (answer.max() <= 1 if mask else torch.allclose(answer.sum(1, True), total, atol=1e-3)):
        last = "sigmoid" if mask else "softmax"
        found.hints.append(f"its answers are probabilities, not logits: take the {last} out of it")
    try:
        segmentor = build_segmentor(source, num_classes=found.num_classes, **found.options)
    except InputError as error:
        found.hints.append(str(error).rstrip("."))
        return
    found.exact = True
    if segmentor.fixed_size is not None:
        found.hints.append("it takes images of {}x{} only".format(*segmentor.fixed_size))


def _answer(network: torch.nn.Module, channels: int) -> Tensor | None:
    for batch, size in itertools.product((1, 2), ((128, 128), (224, 224), (512, 512))):
        try:
            with torch.no_grad():
                answer = network(smooth_noise(batch, *size, channels))
        except Exception:  # programs raise what they like
            continue
        if isinstance(answer, Mapping):
            answer = answer.get("out", answer.get("logits"))
        return answer.float() if isinstance(answer, Tensor) else None
    return None


def _inspect_own(path: Path) -> Inspected:
    content = read_segmentor_file(path)
    spec = content["spec"]
    found = Inspected(f"a file of this program: {described(spec)}", "saved", {"checkpoint": str(path)})
    found.num_classes = spec["num_classes"]
    found.classes = tuple(content["classes"]) if content["classes"] else None
    _count(found, content["state_dict"])
    found.exact = not spec_runs_code(spec)
    return found


def _inspect_weights(path: Path, content: Any, key: str | None, factory: str | None) -> Inspected:
    state = find_state_dict(content, path, key)
    extra = {"checkpoint": str(path)} | ({} if key is None else {"checkpoint_key": key})
    tops = {name.split(".")[0] for name in state}
    if factory is not None:
        found = Inspected(f"weights of {factory}", "factory", {"factory": factory} | extra | _guessed(state))
        found.hints.append(_GUESSED)
        _try(found)
        return found
    if {"encoder", "segmentation_head"} <= tops:
        found = inspect_smp(state)
    elif tops & _TRANSFORMERS or "decode_head.classifier.weight" in state:
        found = Inspected("weights of transformers; config.json has the network: give the folder of save_pretrained")
    elif {"backbone", "decode_head"} <= tops:
        found = _mmseg(state, content)
    elif {"backbone", "classifier"} <= tops:
        found = _torchvision(state)
    elif tops & {"conv_stem", "conv1", "features", "patch_embed"}:
        found = Inspected("weights of a classification network: an encoder, no segmentation network")
        found.hints.append("a student can begin with it: student.encoder_checkpoint names this file")
    else:
        found = Inspected("weights of a network that is none of the known ones")
        found.hints.append("factory is a placeholder: name the code that builds it, --factory package.module:callable")
        found.source = "factory"
        found.options = {"factory": "my_package.my_module:build_network"} | _guessed(state)
    if found.source is not None:
        found.options |= extra
        found.candidates = [options | extra for options in found.candidates]
        found.hints.append(_GUESSED)
    _count(found, state)
    if "output" in found.options:
        found.hints.append("its head has one channel: a mask, of two classes, background and object")
    return found


def _guessed(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return _IMAGENET | unusual(in_channels(state))


def _torchvision(state: Mapping[str, Tensor]) -> Inspected:
    found = Inspected("weights of torchvision", "torchvision", dict(_TORCHVISION[0]))
    heads = [value for key, value in state.items() if key.startswith("classifier.") and value.ndim == 4]
    if heads:
        found.num_classes, contract = max(2, len(heads[-1])), unusual(in_channels(state), len(heads[-1]))
        tried = [one | contract for one in _TORCHVISION]
        found.candidates = [options for options in tried if fits("torchvision", found.num_classes, options, state)]
    if found.candidates:
        found.options, found.exact = dict(found.candidates[0]), True
    else:
        found.hints.append("arch is a placeholder, as none fits exactly: give what it was built with")
    return found


def _mmseg(state: Mapping[str, Tensor], content: Any) -> Inspected:
    found = Inspected("weights of MMSegmentation")
    head = state.get("decode_head.conv_seg.weight", state.get("decode_head.linear_pred.weight"))
    found.num_classes = None if head is None else max(2, int(head.shape[0]))
    names, _ = recorded_classes(content)
    found.classes = None if names is None else tuple(names)
    found.hints.append("its architecture is in its config file: source mmseg, config: the file")
    return found


def _count(found: Inspected, state: Mapping[str, Tensor]) -> None:
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    found.parameters = sum(value.numel() for key, value in state.items() if not key.endswith(statistics))
    found.batch_norms = sum(key.endswith("running_mean") for key in state)
