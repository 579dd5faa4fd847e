"""Source `mmseg`: networks of MMSegmentation. What needs its packages is in `mmseg_networks`, imported late."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from dfad_seg.common.errors import InputError
from dfad_seg.common.values import FileName, options
from dfad_seg.segmentors.kinds import Network, SourceOptions

INSTALL = (
    "pip install --no-deps onedl-mmsegmentation==1.4.2 onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 and then"
    " pip install addict termcolor yapf ftfy regex wcwidth prettytable platformdirs terminaltables"
)


@options
class MmsegOptions(SourceOptions):
    """A network of MMSegmentation, as its config describes it. Nothing is downloaded: pretrained weights in the
    config are left out, and so are auxiliary heads, which only serve training on labels."""

    config: FileName | None = None
    """A config file, or `mmseg::NAME` for one that the installed package brings. A config is Python code, and its
    `custom_imports` are imported."""
    cfg_options: dict[str, Any] | None = None
    """Entries of the config to change, by dotted name: `{"model.decode_head.num_classes": 11}`."""
    model: dict[str, Any] | None = None
    """In place of a config, the `model` entry itself, as a saved network stores it."""


def build_mmseg(chosen: MmsegOptions, *, num_classes: int) -> Network:
    """A network whose answer is that of `encode_decode`, with its data preprocessor's normalisation, classes, colours.

    Raises:
        InputError: the packages are missing, the config cannot be read or built, or answers other classes.
    """
    require_mmseg()
    from dfad_seg.segmentors import mmseg_networks

    return mmseg_networks.build(
        num_classes=num_classes, config=chosen.config, cfg_options=chosen.cfg_options, model=chosen.model
    )


def require_mmseg() -> None:
    """Raises InputError where the packages of MMSegmentation cannot be imported; it says how to install them."""
    try:
        importlib.import_module("mmseg.models")
    except (ImportError, AssertionError) as error:  # MMSegmentation asserts that the versions fit each other
        raise InputError(
            f"MMSegmentation cannot be used here ({type(error).__name__}: {str(error).strip().splitlines()[0]})."
            f" Install it: {INSTALL}. OpenMMLab's own mmsegmentation 1.2.2 serves as well; both have the same import"
            " names, so an environment holds one of the two."
        ) from error


def recorded_classes(content: Any) -> tuple[list[str] | None, list[list[int]] | None]:
    """Class names and colours that a checkpoint of MMSegmentation holds beside its weights, each None if it does not.

    Understood are `meta.dataset_meta` (1.x) and `meta.CLASSES`, `meta.PALETTE` (0.x).
    """
    meta = content.get("meta") if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping):
        return None, None
    found = meta.get("dataset_meta")
    if not isinstance(found, Mapping):
        found = {"classes": meta.get("CLASSES"), "palette": meta.get("PALETTE")}
    return plain_classes(found.get("classes"), found.get("palette"))


def plain_classes(classes: Any, palette: Any) -> tuple[list[str] | None, list[list[int]] | None]:
    """Names and RGB triples as plain lists; None for what is neither, and for colours that do not go with the names."""
    if not isinstance(classes, (list, tuple)) or not all(isinstance(name, str) for name in classes):
        return None, None
    colours = isinstance(palette, (list, tuple)) and all(
        isinstance(colour, (list, tuple)) and len(colour) == 3 and all(isinstance(v, int) for v in colour)
        for colour in palette
    )
    fits = colours and len(palette) == len(classes)
    return list(classes), [list(colour) for colour in palette] if fits else None


def runs_code(spec: Mapping[str, Any]) -> bool:
    """Whether building this runs a config, which is Python, or imports types and scopes beyond MMSegmentation."""
    if spec.get("config") is not None or spec.get("cfg_options") is not None:
        return True
    return any("." in name or name in ("DFADSegmentor", "_scope_") for name in named_types(spec.get("model")))


def named_types(value: Any) -> list[str]:
    """Every `type` in a model's entry, and `_scope_` where an entry changes the registry, which imports a package."""
    if isinstance(value, Mapping):
        own = [str(value["type"])] if "type" in value else []
        own += ["_scope_"] if "_scope_" in value else []
        return own + [name for inner in value.values() for name in named_types(inner)]
    return [name for inner in value for name in named_types(inner)] if isinstance(value, (list, tuple)) else []
