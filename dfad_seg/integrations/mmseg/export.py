"""A segmentor of ours as a config and a checkpoint that MMSegmentation's own tools read."""

from __future__ import annotations

import pprint
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmseg.apis import init_model
from mmseg.structures import SegDataSample
from torch import Tensor

from dfad_seg import __version__
from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_text, write_torch
from dfad_seg.integrations.mmseg.segmentor import PREPROCESSOR
from dfad_seg.segmentors import Segmentor, load_segmentor
from dfad_seg.segmentors.mmseg_networks import EncodeDecode, dataset_classes, read_config
from dfad_seg.segmentors.mmseg_source import plain_classes

_OURS = "dfad_seg.integrations.mmseg"
# These sources rebuild a network from a file that holds code, which a checkpoint of theirs does not carry.
_NOT_EXPORTED = ("torchscript", "torch_export")
# What of a config serves tests and inference; training belongs to the network that it was written for.
_KEPT = (
    "default_scope", "env_cfg", "vis_backends", "visualizer", "log_processor", "log_level", "default_hooks",
    "metainfo", "test_pipeline", "tta_pipeline", "tta_model", "val_dataloader", "val_evaluator", "val_cfg",
    "test_dataloader", "test_evaluator", "test_cfg",
)  # fmt: skip


def export_mmseg(
    segmentor: Segmentor | str | Path,
    directory: str | Path,
    *,
    base: Config | str | Path | None = None,
    classes: Sequence[str] | None = None,
    palette: Sequence[Sequence[int]] | None = None,
    name: str = "student",
    trust: bool = False,
) -> Path:
    """Write `NAME.py` and `NAME.pth` for `init_model`, `inference_model` and `tools/test.py` of MMSegmentation.

    A network of theirs becomes a plain config that needs nothing of ours. Any other is wrapped in a `DFADSegmentor`,
    whose `custom_imports` need this package installed beside theirs.

    Args:
        segmentor: the network, or a `student.pt` or `teacher.pt` that a run wrote.
        directory: where to; made if it is not there.
        base: a config of theirs (path, `mmseg::NAME`, or read already) from which data sets, pipelines, metrics and the
            inference mode are taken. Without one, the config tests on folders `data/img_dir/test`, `data/ann_dir/test`.
        classes, palette: names and RGB triples; default: the network's own, or else the base's data set's.
        trust: as in `load_segmentor`.

    Returns:
        The path of the config.

    Raises:
        InputError: a network that cannot be rebuilt from a config, a file that is none, classes that do not fit.
    """
    if not isinstance(segmentor, Segmentor):
        segmentor = load_segmentor(segmentor, trust=trust)
    spec = segmentor.spec
    if spec is None or spec["source"] in _NOT_EXPORTED:
        what = "was built by hand" if spec is None else f"comes from the source '{spec['source']}'"
        raise InputError(
            f"this network {what}, so no config of MMSegmentation can describe it. Exported are networks of the sources"
            " smp, torchvision, factory and mmseg."
        )
    found = base if isinstance(base, Config) or base is None else read_config(base)
    given = _plain({} if found is None else found.to_dict())
    names, colours = _classes(segmentor, given, classes, palette)
    content = {name: given[name] for name in _KEPT if name in given} if given else _folders()
    _describe_data(content, names, colours)
    content["model"], state = _model(segmentor, given.get("model", {}))
    imports = list((given.get("custom_imports") or {}).get("imports", []))
    if content["model"]["type"] == "DFADSegmentor":
        imports = [*(name for name in imports if name != _OURS), _OURS]
    else:
        imports = [name for name in imports if name != _OURS]
    if imports:
        content["custom_imports"] = {"imports": imports, "allow_failed_imports": False}

    directory = Path(directory)
    config, checkpoint = directory / f"{name}.py", directory / f"{name}.pth"
    meta = {"dataset_meta": {"classes": names, "palette": colours}, "dfad_seg": __version__}
    write_torch(checkpoint, {"meta": meta, "state_dict": state})
    write_text(config, _text(content, config.name, checkpoint.name))
    _check(segmentor, config, checkpoint)
    return config


def _model(segmentor: Segmentor, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The entry `model` and its weights; `given` is that of the base."""
    assert segmentor.spec is not None
    spec = segmentor.spec
    network = segmentor.network
    state = {key: value.detach().cpu().clone() for key, value in segmentor.network_state_dict().items()}
    mode = given.get("test_cfg") or {"mode": "whole"}
    if spec["source"] == "mmseg":
        assert isinstance(network, EncodeDecode)
        kept = {key.removeprefix("model."): value for key, value in state.items()}
        return {**spec["model"], "test_cfg": {**(spec["model"].get("test_cfg") or {}), **mode}}, kept
    options = {"source": spec["source"], "num_classes": segmentor.num_classes}
    ours = {
        key: value for key, value in spec.items() if key not in ("checkpoint", "encoder_checkpoint", "encoder_weights")
    }
    ready_made = spec["source"] == "factory" and "mean" not in spec
    entry = _plain({**ours, **options, **({} if ready_made else segmentor.preprocessing())})
    entry.pop("classes", None)
    # How their training pads is the base's business; what the network sees is ours.
    padding = {
        key: v
        for key, v in (given.get("data_preprocessor") or {}).items()
        if key in ("size", "size_divisor", "seg_pad_val")
    }
    return {
        "type": "DFADSegmentor",
        "segmentor": entry,
        "data_preprocessor": {**PREPROCESSOR, **padding},
        "test_cfg": mode,
    }, {f"segmentor.network.{key}": value for key, value in state.items()}


def _classes(
    segmentor: Segmentor,
    given: Mapping[str, Any],
    classes: Sequence[str] | None,
    palette: Sequence[Sequence[int]] | None,
) -> tuple[list[str], list[list[int]]]:
    named, coloured = dataset_classes(given)
    if named is not None and len(named) != segmentor.num_classes:
        raise InputError(
            f"the base config's data set has {len(named)} classes, and the network answers {segmentor.num_classes}."
            " Give the config that the teacher was trained with."
        )
    chosen = classes or segmentor.classes or named or [f"class_{i}" for i in range(segmentor.num_classes)]
    names, colours = plain_classes(_plain(chosen), _plain(palette or segmentor.palette or coloured))
    if names is None or len(names) != segmentor.num_classes:
        raise InputError(
            f"{len(chosen)} class names are given, and the network answers {segmentor.num_classes} classes."
        )
    if colours is None:
        colours = np.random.default_rng(0).integers(0, 256, (len(names), 3)).tolist()
    return names, colours


def _folders() -> dict[str, Any]:
    """Tests on MMSegmentation's usual folders, for a network that comes without a config of theirs."""
    load, pack = {"type": "LoadImageFromFile"}, {"type": "PackSegInputs"}
    annotations = {"type": "LoadAnnotations"}
    loader = {
        "batch_size": 1,
        "num_workers": 2,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": {
            "type": "BaseSegDataset",
            "data_root": "data",
            "data_prefix": {"img_path": "img_dir/test", "seg_map_path": "ann_dir/test"},
            "pipeline": [load, annotations, pack],
        },
    }
    flips = [{"type": "RandomFlip", "prob": p, "direction": "horizontal"} for p in (0.0, 1.0)]
    sizes = [{"type": "Resize", "scale_factor": r, "keep_ratio": True} for r in (0.75, 1.0, 1.25)]
    return {
        "default_scope": "mmseg",
        "env_cfg": {"cudnn_benchmark": False, "mp_cfg": {"mp_start_method": "fork"}, "dist_cfg": {"backend": "nccl"}},
        "vis_backends": [{"type": "LocalVisBackend"}],
        "visualizer": {
            "type": "SegLocalVisualizer", "vis_backends": [{"type": "LocalVisBackend"}], "name": "visualizer",
        },
        "log_level": "INFO",
        "default_hooks": {
            "timer": {"type": "IterTimerHook"},
            "logger": {"type": "LoggerHook", "interval": 50, "log_metric_by_epoch": False},
            "visualization": {"type": "SegVisualizationHook"},
        },
        "test_dataloader": loader,
        "test_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        "test_cfg": {"type": "TestLoop"},
        "tta_model": {"type": "SegTTAModel"},
        "tta_pipeline": [load, {"type": "TestTimeAug", "transforms": [sizes, flips, [annotations], [pack]]}],
    }  # fmt: skip


def _describe_data(content: dict[str, Any], classes: list[str], palette: list[list[int]]) -> None:
    """`test_pipeline`, which inference reads, and the classes of folders that do not know their own."""
    content.setdefault("default_scope", "mmseg")
    for loader in ("val_dataloader", "test_dataloader"):
        dataset = (content.get(loader) or {}).get("dataset")
        if isinstance(dataset, dict) and dataset.get("type") == "BaseSegDataset":
            dataset.setdefault("metainfo", {"classes": classes, "palette": palette})
    if "test_pipeline" not in content:
        dataset = (content.get("test_dataloader") or {}).get("dataset") or {}
        content["test_pipeline"] = dataset.get("pipeline") or _folders()["test_dataloader"]["dataset"]["pipeline"]


def _text(content: Mapping[str, Any], config: str, checkpoint: str) -> str:
    head = (
        f"# A network for MMSegmentation's own tools, written by dfad_seg {__version__}:\n"
        f"#   python MMSEG/tools/test.py {config} {checkpoint}\n"
    )
    body = [f"{key} = {pprint.pformat(value, width=110, sort_dicts=False)}\n" for key, value in content.items()]
    return head + "".join(body)


@torch.no_grad()
def _check(segmentor: Segmentor, config: Path, checkpoint: Path) -> None:
    """The exported network, as MMSegmentation builds it, must have the same weights and give the same answers."""
    theirs = init_model(str(config), str(checkpoint), device="cpu")
    ours = segmentor.network_state_dict()
    state = theirs.state_dict()
    if len(state) != len(ours):
        raise InputError(f"MMSegmentation builds {config} with {len(state)} tensors, and the network has {len(ours)}.")
    theirs.test_cfg["mode"] = "whole"
    size = (65, 97)
    image = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    sample = SegDataSample(metainfo={"ori_shape": size, "img_shape": size})
    found = theirs.test_step({"inputs": [image.flip(0)], "data_samples": [sample]})[0].seg_logits.data
    modes = {module: module.training for module in segmentor.modules()}
    images = image[None].to(next(segmentor.parameters()).device) / 255
    expected = segmentor.eval()(images)[0].cpu()
    for module, mode in modes.items():
        module.training = mode
    scale = float(expected.abs().max().clamp_min(1e-12))
    if not float((found - expected).abs().max()) <= 1e-4 * scale:
        raise InputError(f"the network exported to {config} answers otherwise in MMSegmentation. Please report this.")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(inner) for inner in value) if type(value) in (list, tuple) else list(value)
    if isinstance(value, Path):
        return str(value)
    return value
