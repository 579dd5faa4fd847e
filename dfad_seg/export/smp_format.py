"""Format `smp`: a folder that `segmentation_models_pytorch.from_pretrained` loads."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_json
from dfad_seg.export.base import Exported, ExportOptions, description, folder_whole
from dfad_seg.export.torch_formats import DESCRIPTION_FILE
from dfad_seg.segmentors import Segmentor, exportable

FILES = ("config.json", "model.safetensors", "README.md", DESCRIPTION_FILE)


def export_smp(segmentor: Segmentor, path: Path, options: ExportOptions) -> Exported:
    """smp's own folder: `config.json`, `model.safetensors`, `README.md`; and `segmentor.json`.

    smp's network takes normalised images of multiples of its stride; `segmentor.json` says both.

    Raises:
        InputError: the network is none of smp's.
    """
    network = segmentor.network
    if segmentor.spec is not None and segmentor.spec["source"] == "cut":
        raise InputError(
            "format smp cannot hold a network that was cut: smp.from_pretrained builds it with all of its channels."
            " Use another format."
        )
    save = getattr(network, "save_pretrained", None)
    if save is None or not type(network).__module__.startswith("segmentation_models_pytorch."):
        raise InputError(
            f"format smp needs a network of segmentation_models_pytorch, and this is a {type(network).__name__}."
            " Use another format."
        )
    copied = exportable(segmentor, dynamic=False).segmentor.network
    with folder_whole(path, FILES) as temporary:
        copied.save_pretrained(str(temporary))  # type: ignore[operator]
        _leave_out_downloads(temporary / "config.json")
        write_json(temporary / DESCRIPTION_FILE, description(segmentor, options))
        _compare_weights(type(network).from_pretrained(str(temporary)), copied, path)  # type: ignore[attr-defined]
    preprocessing = segmentor.preprocessing()
    return Exported(
        "smp",
        path,
        (),
        (
            f"{len(copied.state_dict())} tensors, loaded by smp and equal bit by bit",
            f"the network itself takes (image * {preprocessing['input_scale']:g} - mean) / std, channel order"
            f" {preprocessing['channel_order']}, sides in multiples of {preprocessing['stride']}: see"
            f" {DESCRIPTION_FILE}",
        ),
    )


def _leave_out_downloads(config: Path) -> None:
    """The weights are in the folder: loading it must not fetch the encoder's."""
    values = json.loads(config.read_text(encoding="utf-8"))
    write_json(config, values | {"encoder_weights": None})


def _compare_weights(loaded: nn.Module, network: nn.Module, path: Path) -> None:
    state, found = network.state_dict(), loaded.state_dict()
    if state.keys() != found.keys() or not all(torch.equal(found[key], value) for key, value in state.items()):
        raise InputError(f"smp reads {path} otherwise than it was written. Use another format.")
