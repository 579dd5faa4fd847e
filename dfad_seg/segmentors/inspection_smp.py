"""Which network of segmentation_models_pytorch a file's weights belong to, by their names and shapes."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dfad_seg.common.errors import InputError
from dfad_seg.segmentors.kinds import SIGMOID
from dfad_seg.segmentors.sources import build_segmentor

# Encoders that are tried, in the order of how common they are, by a part that only their family's names have.
_ENCODERS: dict[str, tuple[str, ...]] = {
    "model.patch_embed.": tuple(f"tu-vit_{size}_patch16_224" for size in ("base", "tiny", "small", "large")),
    "patch_embed1.": tuple(f"mit_b{i}" for i in range(6)),
    "model.": (
        *("tu-mobilenetv3_small_100", "tu-mobilenetv3_small_075", "tu-mobilenetv3_small_050"),
        *("tu-mobilenetv3_large_100", "tu-mobilenetv2_100", "tu-efficientnet_lite0"),
        *("tu-resnet18", "tu-resnet34", "tu-resnet50", "tu-resnet101"),
        *(f"tu-efficientnet_b{i}" for i in range(5)),
    ),
    "_conv_stem.": tuple(f"efficientnet-b{i}" for i in range(8)),
    "conv_stem.": tuple(f"timm-efficientnet-b{i}" for i in range(6)),
    "features.": ("mobilenet_v2", "vgg16_bn", "densenet121"),
    "layer1.": (
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
        *("resnext50_32x4d", "se_resnet50", "se_resnext50_32x4d"),
    ),
}
_STEM = re.compile(
    r"(conv1(\.0)?|conv_stem|features\.(0\.0|0|conv0)|patch_embed1?\.proj|stem(_0|\.0)?(\.conv)?)\.weight$"
)
_BLOCK = re.compile(r"decoder\.blocks\.(?:x_0_)?(\d+)\.conv2\.0\.weight")
# By a beginning of names that only its decoder has: the architecture, the option that is the width before its head
# with smp's default, and what further options its shapes may show.
_DECODERS: dict[str, tuple[str, str, int, list[dict[str, Any]]]] = {
    r"block2\.": ("DeepLabV3Plus", "decoder_channels", 256, [{}, {"decoder_aspp_separable": False}]),
    r"(aspp|0\.convs)\.": ("DeepLabV3", "decoder_channels", 256, [{}, {"decoder_aspp_separable": True}]),
    r"p5\.": ("FPN", "", 0, [{}, {"decoder_merge_policy": "cat"}]),
    r"fpn_": ("UPerNet", "decoder_channels", 256, [{}]),
    r"psp\.": ("PSPNet", "psp_out_channels", 512, [{}]),
    r"mlp_stage\.": ("Segformer", "decoder_segmentation_channels", 256, [{}]),
    r"gau": ("PAN", "decoder_channels", 32, [{}]),
    r"reassemble": ("DPT", "", 0, [{}, {"decoder_readout": "ignore"}]),
}
_RATES = {"decoder_atrous_rates": [[12, 24, 36], [6, 12, 18]]}
_INTERPOLATION = {"decoder_interpolation": ["nearest", "bilinear"]}
# What changes a network's numbers and neither its names nor its shapes; smp's own defaults first.
_UNSEEN: dict[str, dict[str, list[Any]]] = {
    "DeepLabV3": {"encoder_output_stride": [8, 16], **_RATES},
    "DeepLabV3Plus": {"encoder_output_stride": [16, 8], **_RATES},
    "PAN": {"encoder_output_stride": [16, 32], "decoder_interpolation": ["bilinear", "nearest"]},
    "Unet": _INTERPOLATION,
    "UnetPlusPlus": _INTERPOLATION,
    "MAnet": _INTERPOLATION,
    "FPN": _INTERPOLATION,
}


@dataclass
class Inspected:
    """What a file looks like.

    Attributes:
        source: a key of `SOURCES`, `saved`, or None where no source takes it as it is.
        options: of this source, as far as they can be read off; `checkpoint` or `path` among them.
        hints: what else there is to know, one sentence each.
        exact: whether the network of `source` and `options` fits the file's keys and shapes.
        candidates: all options whose networks do; the file cannot tell them apart, and their numbers differ.
    """

    kind: str
    source: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    classes: tuple[str, ...] | None = None
    parameters: int | None = None
    batch_norms: int | None = None
    hints: list[str] = field(default_factory=list)
    exact: bool = False
    candidates: list[dict[str, Any]] = field(default_factory=list)


def inspect_smp(state: Mapping[str, Tensor]) -> Inspected:
    """A state with an encoder and a segmentation_head."""
    found = Inspected("weights of segmentation_models_pytorch", "smp")
    heads = [value for key, value in state.items() if key.startswith("segmentation_head.") and value.ndim == 4]
    if not heads or not any(key.startswith("decoder.") for key in state):
        lack = "no convolution in its head" if not heads else "no decoder"
        found.kind = f"weights with an encoder and a segmentation_head, as smp names them, and {lack}"
        found.source, found.options = "factory", {"factory": "my_package.my_module:build_network"}
        found.hints.append("it is none of smp's networks: build it by your own code, source factory")
        return found
    found.num_classes = max(2, len(heads[-1]))
    contract = unusual(in_channels(state), len(heads[-1]))
    arch, tried = _architecture(state)
    encoders = _encoders(state)
    found.options = {"arch": arch, "encoder_name": (*encoders, "resnet50")[0], **contract}
    for encoder in encoders:
        plain = {"arch": arch, "encoder_name": encoder, **contract}
        seen = next((one for one in tried if fits("smp", found.num_classes, {**plain, **one}, state)), None)
        if seen is None:
            continue
        unseen = _UNSEEN.get(arch, {})
        for twin, values in itertools.product(_twins(encoder), itertools.product(*unseen.values())):
            # smp's own defaults need no words.
            told = {name: value for name, value in zip(unseen, values, strict=True) if value != unseen[name][0]}
            one = {**plain, "encoder_name": twin, **seen, **told}
            if (twin == encoder and not told) or fits("smp", found.num_classes, one, state):
                found.candidates.append(one)
        found.options, found.exact = dict(found.candidates[0]), True
        break
    if not found.exact:
        found.hints.append(
            "arch and encoder_name are placeholders: no usual combination fits; give what it was built with"
        )
    return found


def fits(source: str, num_classes: int, options: dict[str, Any], state: Mapping[str, Tensor]) -> bool:
    """Whether the network has exactly these keys and shapes."""

    def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
        return {key: value.shape for key, value in state.items() if not key.endswith("num_batches_tracked")}

    for device in ("meta", "cpu"):  # without memory for weights, but for networks that compute while they are built
        try:
            with torch.device(device):
                network = build_segmentor(source, num_classes=num_classes, **options).network
        except (InputError, NotImplementedError, RuntimeError):
            continue
        unused = tuple(getattr(network, "unused_weights", ()))
        theirs = {key: value for key, value in state.items() if not key.startswith(unused)}
        return shapes(network.state_dict()) == shapes(theirs)
    return False


def _architecture(state: Mapping[str, Tensor]) -> tuple[str, list[dict[str, Any]]]:
    """An architecture whose decoder has names like these, and options that its shapes show, each to be tried."""
    names = [key.removeprefix("decoder.") for key in state if key.startswith("decoder.")]

    def has(start: str) -> bool:
        return any(re.match(start, name) for name in names)

    widths = {int(m[1]): len(state[m[0]]) for name in state if (m := _BLOCK.fullmatch(name))}
    if widths:  # of Unet, UnetPlusPlus and MAnet, a block per stage
        arch = "MAnet" if has(r"center\.top_conv") else "UnetPlusPlus" if has(r"blocks\.x_") else "Unet"
        found = [widths[stage] for stage in sorted(widths)]
        options: dict[str, Any] = {} if found == [256, 128, 64, 32, 16] else {"decoder_channels": found}
        options |= {} if len(found) == 5 else {"encoder_depth": len(found)}
        return arch, [options, {**options, "decoder_attention_type": "scse"}]
    for start, (arch, width, usual, tried) in _DECODERS.items():
        if has(start):
            head = [value for key, value in state.items() if key.startswith("segmentation_head.") and value.ndim == 4]
            count = int(head[-1].shape[1])
            return arch, [({width: count} if width and count != usual else {}) | one for one in tried]
    return "Linknet", [{}, {"encoder_depth": 4}]


def _encoders(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    for start, encoders in _ENCODERS.items():
        if any(key.startswith(f"encoder.{start}") for key in state):
            return encoders
    return ()


def _twins(encoder: str) -> list[str]:
    """timm's networks of the same names and shapes with TensorFlow's BatchNorm eps and padding, and the reverse."""
    import timm

    name = encoder.removeprefix("tu-")
    return [encoder, f"tu-tf_{name}"] if name != encoder and timm.is_model(f"tf_{name}") else [encoder]


def in_channels(state: Mapping[str, Tensor]) -> int:
    """Of the first convolution."""
    kernels = {key: value for key, value in state.items() if value.ndim == 4}
    first = next((key for key in kernels if _STEM.search(key)), next(iter(kernels), None))
    return 3 if first is None else int(kernels[first].shape[1])


def unusual(channels: Any, out_channels: Any = None) -> dict[str, Any]:
    """Options of `Contract` for images that are not RGB (mean and std are then a guess) and a mask by one channel."""
    found: dict[str, Any] = {}
    if isinstance(channels, int) and channels != 3 and 0 < channels < 1000:
        found |= {"in_channels": channels, "mean": [0.5] * channels, "std": [0.25] * channels}
    return found | ({"output": SIGMOID} if out_channels == 1 else {})
