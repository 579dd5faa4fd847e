"""A config of MMSegmentation becomes a network; see `segmentors.mmseg_source.build_mmseg` for the contract."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mmengine.registry
import mmseg
import mmseg.registry
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import Registry, init_default_scope
from mmseg.registry import DATASETS, MODELS

from dfad_seg.common.errors import InputError, nearest
from dfad_seg.integrations.mmseg.networks import EncodeDecode, as_segmentor, normalisation, plain_model
from dfad_seg.segmentors.mmseg_source import plain_classes

_OWN = "mmseg::"


def build(
    *,
    num_classes: int,
    config: str | Path | None,
    cfg_options: Mapping[str, Any] | None,
    model: Mapping[str, Any] | None,
) -> tuple[EncodeDecode, dict[str, Any]]:
    """What `segmentors.mmseg_source.build_mmseg` does."""
    if (config is None) == (model is None):
        raise InputError("segmentor source 'mmseg' needs the option 'config': the path of an MMSegmentation config.")
    classes: list[str] | None = None
    palette: list[list[int]] | None = None
    what = "the stored model of MMSegmentation"
    if config is not None:
        found = read_config(config, cfg_options)
        if "model" not in found:
            raise InputError(f"the config {config} has no entry model. Give a config that describes a network.")
        entry, what = plain_model(found.model), f"the model of the config {config}"
        classes, palette = dataset_classes(found)
    else:
        assert model is not None
        if cfg_options:
            raise InputError("cfg_options change a config, and there is none: change the model's own entries.")
        entry = plain_model(model)
        _check_registered(entry)
    built = build_model(entry, what)
    if built.num_classes != num_classes:
        raise InputError(
            f"{what} answers {built.num_classes} classes, and {num_classes} are needed. Set num_classes of its heads,"
            f" for example cfg_options: {{model.decode_head.num_classes: {num_classes}}}, or take another config."
        )
    segmentor = as_segmentor(built)
    network = segmentor.network
    assert isinstance(network, EncodeDecode)
    options: dict[str, Any] = {
        **normalisation(built.data_preprocessor),
        "spec": {"model": entry},
        "palette": palette if palette is not None and len(palette) == num_classes else None,
    }
    if classes is not None and len(classes) == num_classes:
        options["classes"] = classes
    return network, options


def build_model(entry: Mapping[str, Any], what: str = "the model") -> Any:
    """A segmentor of theirs with its initial weights, drawn from torch's global generator.

    Raises:
        InputError: their registry or its constructor refuses the entry.
    """
    init_default_scope("mmseg")
    logger = MMLogger.get_current_instance()
    level = logger.level
    try:
        logger.setLevel(logging.WARNING)  # it would list every tensor with how it was initialised
        built = MODELS.build(ConfigDict(copy.deepcopy(dict(entry))))
        built.init_weights()
    except InputError:
        raise
    except Exception as error:  # their layers raise what they like
        raise InputError(f"MMSegmentation cannot build {what} ({_reason(error)}).") from error
    finally:
        logger.setLevel(level)
    return built


def read_config(config: str | Path, cfg_options: Mapping[str, Any] | None = None) -> Config:
    """A config file, or one of the installed package's own as `mmseg::FOLDER/NAME.py`, with entries changed.

    Raises:
        InputError: no such file, or none that can be read.
    """
    path = _own_config(str(config)) if str(config).startswith(_OWN) else Path(config)
    if not path.is_file():
        raise InputError(f"the MMSegmentation config {config} does not exist. Check the path, or name one of the "
                         f"installed package's as {_OWN}FOLDER/NAME.py.")  # fmt: skip
    try:
        found = Config.fromfile(str(path))
        found.merge_from_dict(dict(cfg_options or {}))
    except Exception as error:  # a config is a program: it can fail in every way
        raise InputError(f"the MMSegmentation config {config} cannot be read ({_reason(error)}).") from error
    return found


def dataset_classes(config: Mapping[str, Any]) -> tuple[list[str] | None, list[list[int]] | None]:
    """Class names and colours of a config's test, validation or training data set; None where it says nothing."""
    for name in ("test_dataloader", "val_dataloader", "train_dataloader"):
        section = config.get(name)
        # Wrappers (repeated, concatenated) hold the data set that knows.
        while isinstance(section, Mapping) and ("dataset" in section or "datasets" in section):
            section = section.get("dataset") or section["datasets"][0]
        if not isinstance(section, Mapping):
            continue
        meta = section.get("metainfo")
        if not isinstance(meta, Mapping) or "classes" not in meta:
            kind = section.get("type")
            kind = DATASETS.get(kind) if isinstance(kind, str) else kind
            meta = getattr(kind, "METAINFO", {})
        classes, palette = plain_classes(meta.get("classes"), meta.get("palette"))
        if classes:
            return classes, palette
    return None, None


def _own_config(name: str) -> Path:
    configs = Path(mmseg.__file__).parent / ".mim" / "configs"
    short = name.removeprefix(_OWN).removesuffix(".py")
    path = configs / f"{short}.py"
    if not path.is_file():
        known = [file.relative_to(configs).with_suffix("").as_posix() for file in configs.rglob("*.py")]
        raise InputError(f"the installed MMSegmentation has no config '{short}'.{nearest(short, known)}")
    return path


def _check_registered(entry: Any) -> None:
    # Their registries import what a type names if they do not know it: a stored network may not ask for that.
    known = {name for registry in _registries() for name in registry.module_dict}
    for name in _plain_types(entry):
        if name not in known:
            raise InputError(
                f"the stored model of MMSegmentation has a part of type '{name}', which is not registered."
                f"{nearest(name, known)} Build it from its config instead, whose custom_imports bring such parts."
            )


def _registries() -> Iterator[Registry]:
    for module in (mmengine.registry, mmseg.registry):
        yield from (value for value in vars(module).values() if isinstance(value, Registry))


def _plain_types(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("type"), str) and "." not in value["type"]:
            yield value["type"]
        for inner in value.values():
            yield from _plain_types(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _plain_types(inner)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no details'}"
