"""Format `mmseg`: a config and a checkpoint that MMSegmentation's own tools read. Needs its packages, imported late."""

import io
import pprint
import tempfile
from collections.abc import Mapping
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
from dfad_seg.exporting.base import Made
from dfad_seg.exporting.mmseg_model import PREPROCESSOR, plain
from dfad_seg.segmentors import Segmentor, exportable, stored_spec
from dfad_seg.segmentors.mmseg_files import plain_classes
from dfad_seg.segmentors.mmseg_networks import EncodeDecode, dataset_classes, read_config

CONFIG, CHECKPOINT = "student.py", "student.pth"
# A config that needs our model imports the module that registers it, and nothing else of this package.
_OURS = "dfad_seg.exporting.mmseg_model"
# These sources rebuild a network from a file that holds code, which a checkpoint of theirs does not carry.
_NOT_EXPORTED = ("torchscript", "torch_export")
# What of a config serves tests and inference; training belongs to the network that it was written for.
_KEPT = (
    "default_scope", "env_cfg", "vis_backends", "visualizer", "log_processor", "log_level", "default_hooks",
    "metainfo", "test_pipeline", "tta_pipeline", "tta_model", "val_dataloader", "val_evaluator", "val_cfg",
    "test_dataloader", "test_evaluator", "test_cfg",
)  # fmt: skip


def make(segmentor: Segmentor, base: Config | str | Path | None = None) -> Made:
    """`student.py` and `student.pth` for `init_model`, `inference_model` and `tools/test.py` of MMSegmentation.

    A network of theirs becomes a plain config that needs nothing of ours. Any other is wrapped in a `DFADSegmentor`,
    whose `custom_imports` need this package installed beside theirs.

    Args:
        base: a config of theirs (path, `mmseg::NAME`, or read already) from which data sets, pipelines, metrics and the
            inference mode are taken. Without one, the config tests on folders `data/img_dir/test`, `data/ann_dir/test`.
    """
    spec = segmentor.spec
    if spec is None or spec["source"] in _NOT_EXPORTED:
        what = "was built by hand" if spec is None else f"comes from the source '{spec['source']}'"
        raise InputError(
            f"this network {what}, so no config of MMSegmentation can describe it. Exported are networks of the sources"
            " smp, torchvision, factory and mmseg."
        )
    found = base if isinstance(base, Config) or base is None else read_config(base)
    given = plain({} if found is None else found.to_dict())
    names, colours = _classes(segmentor, given)
    content = {name: given[name] for name in _KEPT if name in given} if given else _folders()
    _describe_data(content, names, colours)
    content["model"], state = _model(segmentor, given.get("model", {}))
    imports = [name for name in (given.get("custom_imports") or {}).get("imports", []) if "dfad_seg" not in name]
    imports += [_OURS] if content["model"]["type"] == "DFADSegmentor" else []
    if imports:
        content["custom_imports"] = {"imports": imports, "allow_failed_imports": False}
    meta = {"dataset_meta": {"classes": names, "palette": colours}, "dfad_seg": __version__}
    checkpoint = io.BytesIO()
    torch.save({"meta": meta, "state_dict": state}, checkpoint)
    files = {CONFIG: _text(content).encode(), CHECKPOINT: checkpoint.getvalue()}
    _check(segmentor, files)
    return Made(files, (), ("init_model(config, checkpoint) of mmseg.apis loads it",))


def _model(segmentor: Segmentor, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The entry `model` and its weights; `given` is that of the base."""
    assert segmentor.spec is not None
    spec = segmentor.spec
    state = {key: value.detach().cpu().clone() for key, value in segmentor.network.state_dict().items()}
    mode = given.get("test_cfg") or {"mode": "whole"}
    if spec["source"] == "mmseg":
        assert isinstance(segmentor.network, EncodeDecode)
        kept = {key.removeprefix("model."): value for key, value in state.items()}
        return {**spec["model"], "test_cfg": {**(spec["model"].get("test_cfg") or {}), **mode}}, kept
    # How their training pads is the base's business; what the network sees is ours.
    theirs = given.get("data_preprocessor") or {}
    padding = {key: theirs[key] for key in ("size", "size_divisor", "seg_pad_val") if key in theirs}
    if (channels := segmentor.in_channels) != 3:
        padding |= {"mean": [0.0] * channels, "std": [255.0] * channels, "bgr_to_rgb": False}
    model = {
        "type": "DFADSegmentor",
        "segmentor": stored_spec(segmentor),
        "data_preprocessor": {**PREPROCESSOR, **padding},
        "test_cfg": mode,
    }
    return model, {f"segmentor.network.{key}": value for key, value in state.items()}


def _classes(segmentor: Segmentor, given: Mapping[str, Any]) -> tuple[list[str], list[list[int]]]:
    named, coloured = dataset_classes(given)
    if named is not None and len(named) not in (segmentor.num_classes, segmentor.out_channels):
        raise InputError(
            f"the base config's data set has {len(named)} classes, and the network answers {segmentor.num_classes}."
            " Give the config that the teacher was trained with."
        )
    chosen = list(segmentor.classes or named or [f"class_{i}" for i in range(segmentor.num_classes)])
    names, colours = plain_classes(chosen, plain(segmentor.palette or coloured))
    if colours is None:
        colours = np.random.default_rng(0).integers(0, 256, (len(chosen), 3)).tolist()
    return names or chosen, colours


def _folders() -> dict[str, Any]:
    """Tests on MMSegmentation's usual folders, for a network that comes without a config of theirs."""
    load, annotations, pack = (
        {"type": f"{name}"} for name in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")
    )
    backends = [{"type": "LocalVisBackend"}]
    dataset = {
        "type": "BaseSegDataset",
        "data_root": "data",
        "data_prefix": {"img_path": "img_dir/test", "seg_map_path": "ann_dir/test"},
        "pipeline": [load, annotations, pack],
    }
    flips = [{"type": "RandomFlip", "prob": p, "direction": "horizontal"} for p in (0.0, 1.0)]
    sizes = [{"type": "Resize", "scale_factor": r, "keep_ratio": True} for r in (0.75, 1.0, 1.25)]
    sampler = {"type": "DefaultSampler", "shuffle": False}
    return {
        "default_scope": "mmseg",
        "env_cfg": {"cudnn_benchmark": False, "mp_cfg": {"mp_start_method": "fork"}, "dist_cfg": {"backend": "nccl"}},
        "vis_backends": backends,
        "visualizer": {"type": "SegLocalVisualizer", "vis_backends": backends, "name": "visualizer"},
        "default_hooks": {"visualization": {"type": "SegVisualizationHook"}},
        "test_dataloader": {"batch_size": 1, "num_workers": 2, "sampler": sampler, "dataset": dataset},
        "test_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
        "test_cfg": {"type": "TestLoop"},
        "tta_model": {"type": "SegTTAModel"},
        "tta_pipeline": [load, {"type": "TestTimeAug", "transforms": [sizes, flips, [annotations], [pack]]}],
    }


def _describe_data(content: dict[str, Any], classes: list[str], palette: list[list[int]]) -> None:
    """`test_pipeline`, which inference reads, and the classes of folders that do not know their own."""
    content["default_scope"] = content.get("default_scope") or "mmseg"
    datasets = [(content.get(name) or {}).get("dataset") or {} for name in ("val_dataloader", "test_dataloader")]
    for dataset in datasets:
        if dataset.get("type") == "BaseSegDataset":
            dataset.setdefault("metainfo", {"classes": classes, "palette": palette})
    usual = _folders()["test_dataloader"]["dataset"]["pipeline"]
    content.setdefault("test_pipeline", datasets[1].get("pipeline") or usual)


def _text(content: Mapping[str, Any]) -> str:
    head = (
        f"# A network for MMSegmentation's own tools, written by dfad_seg {__version__}:\n"
        f"#   python MMSEG/tools/test.py {CONFIG} {CHECKPOINT}\n"
    )
    body = [f"{key} = {pprint.pformat(value, width=110, sort_dicts=False)}\n" for key, value in content.items()]
    return head + "".join(body)


@torch.no_grad()
def _check(segmentor: Segmentor, files: Mapping[str, bytes]) -> None:
    """The exported network, as MMSegmentation builds it, must have the same weights and give the same answers."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        theirs = init_model(f"{folder}/{CONFIG}", f"{folder}/{CHECKPOINT}", device="cpu")
    found, ours = len(theirs.state_dict()), len(segmentor.network.state_dict())
    if found != ours:
        raise InputError(f"MMSegmentation builds the network with {found} tensors, and it has {ours}.")
    size = (65, 97)
    shape, seed = (segmentor.in_channels, *size), torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, shape, generator=seed, dtype=torch.uint8)
    sample = SegDataSample(metainfo={"ori_shape": size, "img_shape": size})
    read = image.flip(0) if len(image) == 3 else image
    given = theirs.data_preprocessor({"inputs": [read], "data_samples": [sample]}, False)
    answer = theirs.encode_decode(given["inputs"], [one.metainfo for one in given["data_samples"]])
    reference = exportable(segmentor, dynamic=False).segmentor
    answer = answer if answer.shape[1] == segmentor.num_classes else reference.class_logits(answer)
    difference = answer[..., : size[0], : size[1]] - reference(image[None] / 255)
    if not float(difference.abs().max()) <= 1e-4 * float(answer.abs().max().clamp_min(1e-12)):
        raise InputError("the exported network answers otherwise in MMSegmentation. Please report this.")
