"""What files of MMSegmentation say of a network, read without its packages."""

from collections.abc import Mapping
from typing import Any


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
