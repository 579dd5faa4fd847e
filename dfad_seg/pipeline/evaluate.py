"""A config and a checkpoint become benchmark numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfad_seg.config import Config, EvaluationConfig, SegmentorConfig
from dfad_seg.datasets import MetaInfo, eval_loader, eval_transform
from dfad_seg.errors import InputError
from dfad_seg.evaluation import SegmentationMetrics, evaluate_miou
from dfad_seg.evaluation.pictures import write_evaluation_picture
from dfad_seg.pipeline.build import build_network, check_classes, meta_info, open_dataset, to_layout
from dfad_seg.runs import ProgressReport
from dfad_seg.segmentors import WEIGHT_OPTIONS, Segmentor, read_file


def load_role(config: Config, role: str, checkpoint: str | Path) -> Segmentor:
    """The config's teacher or student with the weights of `checkpoint`, which must fit it strictly.

    Args:
        config: the experiment; its `role` section says the architecture.
        role: `"teacher"` or `"student"`.
        checkpoint: a run's `student.pt` or `teacher.pt`, a bare state dict, or (for TorchScript and
            `torch.export` sections) the network file itself.

    Raises:
        InputError: the config has no such section, or the checkpoint does not fit.
    """
    info = meta_info(config)
    section: SegmentorConfig | None = getattr(config, role)
    if section is None:
        raise InputError(f"the config has no {role}. Choose the other one with --role.")
    if section.source == "saved":
        return build_network(SegmentorConfig(source="saved", checkpoint=str(checkpoint)), role, info)
    options = {k: v for k, v in section.options().items() if k not in WEIGHT_OPTIONS}
    key = "path" if section.source in ("torchscript", "torch_export") else "checkpoint"
    options[key] = str(checkpoint)
    network = build_network(SegmentorConfig(source=section.source, **options), role, info)
    if key == "checkpoint":
        _check_against_file(network, role, checkpoint, info)
    return network


def _check_against_file(network: Segmentor, role: str, checkpoint: str | Path, info: MetaInfo) -> None:
    """What a file of ours says of its normalisation and classes must agree with the config: weights alone would fit."""
    content = read_file(checkpoint)
    if not isinstance(content, dict) or not isinstance(content.get("spec"), dict):
        return
    for name, ours in network.preprocessing().items():
        theirs = content["spec"].get(name, ours)
        if theirs != ours:
            raise InputError(
                f"{role}: {checkpoint} was trained with {name} {theirs}, and the config has {ours}. "
                f"Set {role}.{name} to the file's value."
            )
    if content.get("classes") is not None:
        network.classes = tuple(content["classes"])
        check_classes(network, str(checkpoint), info)


def evaluate_network(
    config: Config,
    network: torch.nn.Module,
    *,
    split: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    show_dir: str | Path | None = None,
    show_limit: int | None = None,
    title: str = "evaluating",
) -> SegmentationMetrics:
    """Score a network on the config's data set, at the config's evaluation size.

    Args:
        config: says data set, and in `evaluation` the split and the size.
        network: images (N, 3, H, W) in [0, 1] → logits (N, C, H, W).
        split: another split than the config's.
        batch_size: another batch size than the config's.
        device: auto, cpu or cuda.
        show_dir: a folder for one picture per image: image, truth, prediction, errors.
        show_limit: pictures of that many images at most.
        title: what the progress shows.

    Raises:
        InputError: the config has no data set, or files of it are wrong.
    """
    if config.dataset is None:
        raise InputError("this config has no dataset to evaluate on. Add dataset: {type: ..., root: ...}.")
    info = meta_info(config)
    section = config.evaluation or EvaluationConfig()
    dataset = open_dataset(config, split or section.split, eval_transform(short_side=section.short_side))
    where = _device(device)
    network = to_layout(config, network.to(where))
    loader = eval_loader(
        dataset, batch_size=section.batch_size if batch_size is None else batch_size, num_workers=section.num_workers
    )

    shown: list[str] = []

    def show(batch: Any, predictions: list[Tensor]) -> None:
        assert show_dir is not None
        for image, mask, name, prediction in zip(
            batch["image"], batch["mask"], batch["name"], predictions, strict=True
        ):
            if show_limit is not None and len(shown) >= show_limit:
                return
            shown.append(name)
            write_evaluation_picture(
                Path(show_dir) / f"{name}.png",
                image,
                mask,
                prediction.cpu(),
                classes=info.classes,
                palette=info.palette,
                ignore_index=info.ignore_index,
            )

    with ProgressReport(title, len(dataset), unit="image") as progress:
        return evaluate_miou(
            network,
            loader,
            num_classes=info.num_classes,
            classes=info.classes,
            ignore_index=info.ignore_index,
            device=where,
            progress=progress.advance,
            on_batch=None if show_dir is None else show,
        )


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, and no CUDA device can be used here. Use --device cpu or auto.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
