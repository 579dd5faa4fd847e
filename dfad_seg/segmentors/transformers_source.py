"""Source `transformers`: Hugging Face's networks for semantic segmentation. Their package is imported late."""

import logging
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dfad_seg.common.errors import InputError, explained, instead_of, printable, quiet, require, some
from dfad_seg.common.values import FileName, options
from dfad_seg.segmentors.base import Segmentor
from dfad_seg.segmentors.kinds import Network, SourceOptions
from dfad_seg.segmentors.settling import find_sizes

# Of a configuration: what would fetch or run something, and what says where it once came from.
_DROPPED = (
    *("auto_map", "custom_pipelines", "quantization_config", "_name_or_path", "transformers_version"),
    *("architectures", "dtype"),
)


@options
class TransformersOptions(SourceOptions):
    """A network for semantic segmentation of transformers: SegFormer, UPerNet, BEiT, DPT, MobileViT and others. Weights
    are read from safetensors files alone, and no code is taken from where they come. Normalisation and class names are
    those of its own files."""

    pretrained: FileName | None = None
    """A folder that `save_pretrained` wrote, or a name on the Hugging Face hub, which is downloaded."""
    new_head: bool = False
    """For a student: what the files lack, or have for other classes, begins with random weights; else an error."""
    model: dict[str, Any] | None = None
    """In place of `pretrained`, the configuration itself (`model_type` and its options): random weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.pretrained is None) == (self.model is None):
            raise ValueError("give one of pretrained (a folder or a name on the hub) and model (a configuration)")


def build_transformers(chosen: TransformersOptions, *, num_classes: int) -> Network:
    """A network of `AutoModelForSemanticSegmentation`, with its image processor's normalisation."""
    require("transformers", "transformers")
    from transformers import AutoConfig, AutoModelForSemanticSegmentation

    num_classes = chosen.out_channels(num_classes)
    contract: dict[str, Any] = {}
    if chosen.model is not None:
        values = _plain(chosen.model) | {"num_labels": num_classes}
        what = f"a network of model_type {printable(values.pop('model_type', None), 40)}"
        with _explained(what, "See transformers' documentation of this model's configuration."):
            config = AutoConfig.for_model(str(chosen.model.get("model_type")), **values)
            network = AutoModelForSemanticSegmentation.from_config(config, dtype=torch.float32).eval()
    else:
        assert chosen.pretrained is not None
        config, network = _pretrained(chosen.pretrained, num_classes, chosen.new_head)
        contract = {} if chosen.mean and chosen.std else _normalisation(chosen.pretrained)
        names = [config.id2label[label] for label in sorted(config.id2label)]
        if names != [f"LABEL_{label}" for label in range(num_classes)] and len(set(names)) == len(names) > 1:
            contract["classes"] = tuple(names)
    side = getattr(config, "image_size", None)
    if side is not None:
        network.accepts = (None, None, *(side if isinstance(side, (list, tuple)) else (side, side)))
    stored = _plain(config.to_dict()) | {"model_type": config.model_type}
    for name in ("id2label", "label2id", "num_labels"):
        stored.pop(name, None)
    return Network(network, contract, spec={"model": stored}, settle=lambda segmentor: _settle(segmentor, chosen))


def _pretrained(name: str, num_classes: int, new_head: bool) -> tuple[Any, nn.Module]:
    from transformers import AutoConfig, AutoModelForSemanticSegmentation

    local = _is_local(name)
    advice = "Is it a model for semantic segmentation" + (
        ", written by save_pretrained, with model.safetensors?" if local else
        " on the hub, and is there internet? A local folder is given by its path."
    )  # fmt: skip
    what = f"transformers' network {printable(name, 200)}"
    where: dict[str, Any] = {"trust_remote_code": False, "local_files_only": local}
    if local and not Path(name).exists():
        raise InputError(f"{what} does not exist.{instead_of(name)}")
    with _explained(what, advice):
        config = AutoConfig.from_pretrained(name, **where)
        if config.num_labels != num_classes and not new_head:
            raise InputError(
                f"{what} answers {config.num_labels} classes, and num_classes is {num_classes}. For a student,"
                " new_head: true gives it a head for these."
            )
        config.num_labels = num_classes
        if getattr(config, "use_auxiliary_head", False):
            config.use_auxiliary_head = False  # it only serves training on labels
        network, found = AutoModelForSemanticSegmentation.from_pretrained(
            name, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True,
            ignore_mismatched_sizes=new_head, **where,
        )  # fmt: skip
    lacking = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if lacking and not new_head:
        raise InputError(
            f"{what} lacks weights for {some(lacking, 5)}: its files are"
            " another network's. Give a network for semantic segmentation; a student may begin so with new_head: true."
        )
    odd = [key for key, value in network.state_dict().items() if not torch.isfinite(value).all()]
    if odd:
        raise InputError(f"{what} has weights that are not finite, in {odd[0]}. Take another checkpoint.")
    return config, network.eval()


def _normalisation(name: str) -> dict[str, Any]:
    """Options of the contract from an image processor, whose class has defaults of its own."""
    from transformers import AutoImageProcessor

    what = f"{printable(name, 200)} has no preprocessor_config.json that says how its images were normalised"
    advice = "Give mean and std (ImageNet: [0.485, 0.456, 0.406] and [0.229, 0.224, 0.225])."
    with quiet(logging.getLogger("transformers")), explained(what, advice):
        found = AutoImageProcessor.from_pretrained(name, trust_remote_code=False, local_files_only=_is_local(name))
        scale = 255 * float(found.rescale_factor) if found.do_rescale else 255.0
        mean, std = (found.image_mean, found.image_std) if found.do_normalize else ([0.0] * 3, [1.0] * 3)
    scale = round(scale) if abs(scale - round(scale)) < 1e-6 else scale
    order = "bgr" if getattr(found, "do_flip_channel_order", False) else "rgb"
    return {"mean": mean, "std": std, "input_scale": scale, "channel_order": order}


def _settle(segmentor: Segmentor, chosen: TransformersOptions) -> None:
    """Find the sizes that the network takes; where its logits are smaller than the image, they stay in line with it."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]), quiet():
        height, width = find_sizes(segmentor, "the network", chosen)
        if segmentor.fixed_size is None and chosen.stride is None:
            images = segmentor.normalise(torch.full((1, segmentor.in_channels, height, width), 0.5))
            answer = segmentor.take_logits(segmentor.network(images), 1)
            segmentor.stride = math.lcm(segmentor.stride, max(1, round(height / answer.shape[-2])))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what would fetch or run something."""
    kept = {str(key): value for key, value in values.items() if key not in _DROPPED}
    backbone = kept.get("backbone")
    if isinstance(backbone, str) and (kept.get("model_type") != "timm_backbone" or re.search("[:/]", backbone)):
        raise InputError(
            f"the configuration names a backbone ({printable(backbone, 80)}), which would be fetched: give its"
            " backbone_config in its place."
        )
    kept = {key: _plain(value) if isinstance(value, Mapping) else value for key, value in kept.items()}
    return kept | ({"use_pretrained_backbone": False} if "use_pretrained_backbone" in kept else {})


def _is_local(name: str) -> bool:
    return Path(name).exists() or name.startswith((".", "/", "~"))


@contextmanager
def _explained(what: str, advice: str) -> Iterator[None]:
    """Errors of the package become an `InputError`; its progress bars and warnings are not shown."""
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    bars = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        with quiet(logging.getLogger("transformers")), explained(f"{what} cannot be built", advice):
            yield
    finally:
        if bars:
            enable_progress_bar()
