"""Formats `torchscript`, `torch-export`, `safetensors`, `smp`, `transformers`: made and read back, then written."""

import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfad_seg.common.errors import InputError, explained, quiet
from dfad_seg.exporting.base import DESCRIPTION_FILE, Made, Program, as_json, as_program, as_properties, compare
from dfad_seg.segmentors import Segmentor, exportable, stored_spec
from dfad_seg.segmentors.programs import load_script


def export_torchscript(options: Program, *, segmentor: Segmentor, described: dict[str, Any]) -> Made:
    """A traced TorchScript file for `torch.jit.load`, in Python or C++; the description is its extra file."""
    module = exportable(segmentor, dynamic=False)
    height, width = options.size
    shape = (2, height + 3, width + 5) if options.dynamic else (1, height, width)
    example = torch.zeros(shape[0], segmentor.in_channels, *shape[1:])
    written = io.BytesIO()
    with quiet():  # TorchScript is deprecated, and shape checks are no part of the trace
        with explained("torch.jit.trace cannot follow this network", "Use another format."), torch.no_grad():
            traced = torch.jit.trace(module, example, check_trace=False)
            torch.jit.save(traced, written, _extra_files={DESCRIPTION_FILE: json.dumps(described)})
        content = _without_sources(written.getvalue())
        checks = compare("TorchScript", segmentor, load_script(io.BytesIO(content)), options)
    return Made(content, checks, (f"torch.jit.load(path); its extra file is {DESCRIPTION_FILE}",))


def _without_sources(archive: bytes) -> bytes:
    """A TorchScript file without its records of where in whose Python files each operation stands."""
    reader, written = torch._C.PyTorchFileReader(io.BytesIO(archive)), io.BytesIO()
    writer = torch._C.PyTorchFileWriter(written)
    for name in reader.get_all_records():
        if not name.endswith(".debug_pkl") and name not in ("version", "byteorder", ".data/serialization_id"):
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return written.getvalue()


def export_torch_export(options: Program, *, segmentor: Segmentor, described: dict[str, Any]) -> Made:
    """A .pt2 file for `torch.export.load(path).module()`; the description is its extra file."""
    program = as_program(segmentor, options, guarded=True)
    written = io.BytesIO()
    with quiet():
        torch.export.save(program, written, extra_files={DESCRIPTION_FILE: json.dumps(described)})
        loaded = torch.export.load(io.BytesIO(written.getvalue())).module()
        checks = compare("torch.export", segmentor, loaded, options)
    return Made(written.getvalue(), checks, ("torch.export.load(path).module()",))


def export_safetensors(options: object, *, segmentor: Segmentor, described: dict[str, Any]) -> Made:
    """A folder of `model.safetensors`, the network's weights, and `segmentor.json`: how to rebuild the network.

    `build_segmentor(**json["spec"], checkpoint="…/model.safetensors")` gives it back.
    """
    from safetensors.torch import load, save

    spec = stored_spec(segmentor)
    # The format refuses tensors that share memory.
    state = {key: value.detach().cpu().contiguous().clone() for key, value in segmentor.network.state_dict().items()}
    content = save(state, metadata=as_properties(described))
    if not _equal(load(content), state):
        raise InputError("what safetensors wrote reads otherwise. Check the memory, and write it again.")
    files = {"model.safetensors": content, DESCRIPTION_FILE: as_json(described | {"spec": spec})}
    return Made(files, (), (f"{len(state)} tensors, read back equal bit by bit",))


def export_smp(options: object, *, segmentor: Segmentor, described: dict[str, Any]) -> Made:
    """smp's own folder for `segmentation_models_pytorch.from_pretrained`, and `segmentor.json`.

    smp's network takes normalised images of multiples of its stride; `segmentor.json` says both.
    """
    # The weights are in the folder: loading it must not fetch the encoder's.
    network = _whole_network(segmentor, "smp", "segmentation_models_pytorch")
    return _saved_pretrained(network, segmentor, described, {"encoder_weights": None})


def export_transformers(options: object, *, segmentor: Segmentor, described: dict[str, Any]) -> Made:
    """A folder for `AutoModelForSemanticSegmentation` and `AutoImageProcessor`, and `segmentor.json`."""
    copied = _whole_network(segmentor, "transformers", "transformers")
    if segmentor.classes is not None:
        copied.config.id2label = dict(enumerate(segmentor.classes))
        copied.config.label2id = {name: label for label, name in enumerate(segmentor.classes)}
    return _saved_pretrained(
        copied, segmentor, described, {}, {"preprocessor_config.json": as_json(_image_processor(segmentor))}
    )


def _image_processor(segmentor: Segmentor) -> dict[str, Any]:
    """The configuration of an image processor of transformers that does what the segmentor does."""
    given, size = segmentor.preprocessing(), segmentor.fixed_size
    bgr, plain = given["channel_order"] == "bgr", given["mean"] == [0, 0, 0] and given["std"] == [1, 1, 1]
    if bgr and not plain:
        raise InputError("no image processor of transformers has BGR images with mean and std. Use another format.")
    found: dict[str, Any] = {"image_processor_type": "MobileViTImageProcessor" if bgr else "SegformerImageProcessor"}
    found |= {"do_resize": size is not None, "do_rescale": True, "rescale_factor": given["input_scale"] / 255}
    found |= {} if size is None else {"size": {"height": size[0], "width": size[1]}}
    if bgr:
        return found | {"do_flip_channel_order": True, "do_center_crop": False}
    return found | {"do_normalize": not plain, "image_mean": given["mean"], "image_std": given["std"]}


def _whole_network(segmentor: Segmentor, format: str, package: str) -> Any:
    """A copy of the network, to be written in its package's own form."""
    network = segmentor.network
    if not (hasattr(network, "save_pretrained") and type(network).__module__.startswith(f"{package}.")):
        raise InputError(
            f"format {format} needs a network of {package}, and this is a {type(network).__name__}. Use another format."
        )
    if segmentor.spec is not None and segmentor.spec["source"] == "cut":
        raise InputError(
            f"format {format} cannot hold a network that was cut: its from_pretrained builds all of the channels. Use"
            " another format."
        )
    return exportable(segmentor, dynamic=False).segmentor.network


def _saved_pretrained(
    network: Any,
    segmentor: Segmentor,
    described: dict[str, Any],
    changed: Mapping[str, Any],
    more: Mapping[str, bytes] | None = None,
) -> Made:
    """The folder of `save_pretrained`, with entries of its config changed, read back and compared."""
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        config = Path(folder) / "config.json"
        config.write_bytes(as_json(json.loads(config.read_text(encoding="utf-8")) | changed))
        if not _equal(type(network).from_pretrained(folder).state_dict(), network.state_dict()):
            raise InputError("the written folder reads otherwise than it was written. Use another format.")
        files = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
    preprocessing = segmentor.preprocessing()
    notes = (
        f"{len(network.state_dict())} tensors, loaded by its own package and equal bit by bit",
        f"the network itself takes (image * {preprocessing['input_scale']:g} - mean) / std, channel order"
        f" {preprocessing['channel_order']}, sides in multiples of {preprocessing['stride']}: see {DESCRIPTION_FILE}",
    )
    return Made(files | {DESCRIPTION_FILE: as_json(described), **(more or {})}, (), notes)


def _equal(found: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> bool:
    return found.keys() == state.keys() and all(torch.equal(found[key], value) for key, value in state.items())
