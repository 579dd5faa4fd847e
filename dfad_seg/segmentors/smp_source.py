"""Source `smp`: any architecture of segmentation_models_pytorch, with its own or timm's encoders."""

import dataclasses
import inspect
import warnings
from pathlib import Path
from typing import Any, Literal

from dfad_seg.common.errors import InputError, choose, explained, nearest
from dfad_seg.common.reading import read_json
from dfad_seg.common.tensors import read_tensors
from dfad_seg.common.values import Channels, FileName, Fraction, Rate, options, plain, validated
from dfad_seg.segmentors.kinds import DOWNLOADED, Network, SourceOptions
from dfad_seg.segmentors.weights import load_encoder, load_state

Counts = tuple[Channels, ...]
Depth = Literal[1, 2, 3, 4, 5, 6]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "nearest-exact"]
Norm = Literal["batchnorm", "identity", "layernorm", "instancenorm"]

# Where the encoder's stride does not say it all: DPT halves its last map once and PAN three times, to at least a cell.
_STRIDES, _SMALLEST = {"DPT": 2}, {"PAN": 8}


@options
class EncoderOptions:
    """What goes on to timm's `create_model`."""

    img_size: Channels | tuple[Channels, Channels] | None = None
    """(H, W) that a transformer is made for."""
    dynamic_img_size: bool | None = None
    """Let a vision transformer take images of any size."""
    patch_size: Channels | None = None
    window_size: Channels | None = None
    drop_rate: Fraction | None = None
    drop_path_rate: Fraction | None = None
    attn_drop_rate: Fraction | None = None
    proj_drop_rate: Fraction | None = None
    bn_eps: Rate | None = None
    bn_momentum: Fraction | None = None
    pad_type: Literal["", "same"] | None = None


@options
class SmpOptions(SourceOptions):
    """A network of segmentation_models_pytorch. What an architecture does not have is refused."""

    pretrained: FileName | None = None
    """A folder that smp's `save_pretrained` wrote: architecture and weights; options given beside it go before."""
    arch: str | None = None
    """An architecture of smp, in any letter case: DeepLabV3Plus, DeepLabV3, Unet, FPN, ... Needed without
    `pretrained`."""
    encoder_name: str = "resnet34"
    """An encoder of smp, or a timm model as `tu-NAME`. The older spelling `timm-NAME` works as in smp:
    `timm-mobilenetv3_small_100` is `tu-tf_mobilenetv3_small_100`."""
    encoder_weights: str | bool | None = None
    """None for random weights. Anything else ("imagenet") is downloaded: needs internet."""
    encoder_checkpoint: FileName | None = None
    """A local file of the encoder's weights: a classification network's, or the teacher's, with its normalisation."""
    encoder_options: EncoderOptions | None = None
    """For timm's `create_model`; for `tu-` encoders only."""
    encoder_depth: Depth | None = None
    """Number of stages."""
    encoder_output_stride: Literal[8, 16, 32] | None = None
    """Resolution of the image over that of the encoder's last features, in DeepLabs and PAN."""
    encoder_output_indices: tuple[int, ...] | None = None
    """Layers of a transformer that DPT reads."""
    decoder_channels: Channels | Counts | None = None
    decoder_use_norm: bool | Norm | None = None
    decoder_attention_type: Literal["scse"] | None = None
    decoder_interpolation: Interpolation | None = None
    decoder_atrous_rates: Counts | None = None
    decoder_aspp_separable: bool | None = None
    decoder_aspp_dropout: Fraction | None = None
    decoder_pyramid_channels: Channels | None = None
    decoder_segmentation_channels: Channels | None = None
    decoder_merge_policy: Literal["add", "cat"] | None = None
    decoder_dropout: Fraction | None = None
    decoder_pab_channels: Channels | None = None
    decoder_readout: Literal["ignore", "add", "cat"] | None = None
    decoder_intermediate_channels: Counts | None = None
    decoder_fusion_channels: Channels | None = None
    psp_out_channels: Channels | None = None
    psp_dropout: Fraction | None = None
    upsampling: Channels | None = None
    """Factor of the last resize."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.arch is None and self.pretrained is None:
            raise ValueError("arch: this key is needed")


def build_smp(chosen: SmpOptions, *, num_classes: int) -> Network:
    """A network of segmentation_models_pytorch, and the input sizes that it takes."""
    # Imported here: smp and timm take seconds, and other sources do not need them.
    import segmentation_models_pytorch as smp

    folder = chosen.pretrained
    chosen = chosen if folder is None else _in_folder(chosen, Path(folder), num_classes)
    architectures = {cls.__name__: cls for cls in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    spelled = {name.lower(): name for name in architectures}
    assert chosen.arch is not None
    arch = spelled.get(chosen.arch.lower(), chosen.arch)
    build = choose(architectures, arch, "smp architecture")
    encoder = _known_encoder(chosen.encoder_name)
    known = inspect.signature(build.__init__).parameters
    values = {name: value for name in _ARCHITECTURE if (value := getattr(chosen, name)) is not None}
    for name in values:
        if name not in known:
            raise InputError(
                f"segmentor source 'smp': arch {arch} has no option '{name}'.{nearest(name, known)}"
                f" It has {', '.join(name for name in known if name in _ARCHITECTURE)}."
            )
    more = plain(chosen.encoder_options) if chosen.encoder_options is not None else {}
    if more and not encoder.startswith("tu-"):
        raise InputError(f"encoder_options need a timm encoder (tu-NAME); encoder_name is '{encoder}'.")
    what = f"smp cannot build {arch} with the encoder '{encoder}' and these options"
    advice = "" if chosen.encoder_weights is None else DOWNLOADED
    with explained(what, advice), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = build(
            encoder_name=encoder,
            encoder_weights=chosen.encoder_weights,
            in_channels=chosen.in_channels or 3,
            classes=chosen.out_channels(num_classes),
            **values,
            **more,
        )
    module.unused_weights = ("classification_head.",)
    file = chosen.encoder_checkpoint
    normalised = {} if file is None else load_encoder(module.encoder, file)
    if folder is not None:
        whole = Path(folder) / "model.safetensors"
        load_state(module, read_tensors(whole), whole, num_classes=num_classes)
    stride = int(module.encoder.output_stride) if getattr(module, "requires_divisible_input_shape", True) else 1
    stride *= _STRIDES.get(arch, 1)
    return Network(
        module,
        {"stride": stride, "smallest": stride * _SMALLEST.get(arch, 1)} | normalised,
        spec=None if folder is None else {k: v for k, v in plain(chosen).items() if k not in _COMMON},
        fixed_size=_fixed_size(module),
    )


_HERE = ("pretrained", "arch", "encoder_name", "encoder_weights", "encoder_checkpoint", "encoder_options")
_COMMON = {field.name for field in dataclasses.fields(SourceOptions)}
_ARCHITECTURE = [
    field.name for field in dataclasses.fields(SmpOptions) if field.name not in _COMMON and field.name not in _HERE
]
_ENCODER = {field.name for field in dataclasses.fields(EncoderOptions)}
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(SmpOptions)}


def _in_folder(chosen: SmpOptions, folder: Path, num_classes: int) -> SmpOptions:
    """The options with those of a folder that smp wrote, where they do not say otherwise."""
    stored = read_json(folder / "config.json", f"the folder {folder} of smp")
    if not isinstance(stored, dict) or not isinstance(stored.get("_model_class"), str):
        raise InputError(f"{folder / 'config.json'} names no _model_class: smp's save_pretrained did not write it.")
    found = {name: value for name, value in stored.items() if name in _ARCHITECTURE and value is not None}
    encoder = {name: value for name, value in stored.items() if name in _ENCODER and value is not None}
    found |= {"encoder_options": encoder or None, "arch": stored["_model_class"]}
    found["encoder_name"] = stored.get("encoder_name", chosen.encoder_name)
    for name, expected in (("classes", chosen.out_channels(num_classes)), ("in_channels", chosen.in_channels or 3)):
        if stored.get(name, expected) != expected:
            raise InputError(f"the network in {folder} has {name} {stored[name]}, and {expected} are needed.")
    given = {name: value for name, value in plain(chosen).items() if value != _DEFAULTS.get(name)}
    values = validated(SmpOptions, found | given, f"the folder {folder} of smp")
    return dataclasses.replace(values, pretrained=None)


def _fixed_size(module: Any) -> tuple[int, int] | None:
    """(H, W) of a transformer's encoder that takes no other."""
    for part in module.encoder.modules():
        if getattr(part, "strict_img_size", False) and getattr(part, "img_size", None) is not None:
            height, width = part.img_size
            return int(height), int(width)
    return None


def _known_encoder(name: str) -> str:
    import timm
    from segmentation_models_pytorch.encoders import get_encoder_names, is_equivalent_to_timm_universal

    if is_equivalent_to_timm_universal(name):
        # smp's own translation of encoders that it dropped in favour of timm's.
        base = name.removeprefix("timm-")
        tf = base.startswith("mobilenetv3") and timm.is_model(f"tf_{base}")
        name = f"tu-tf_{base}" if tf else f"tu-{base}"
    known = get_encoder_names()
    # `tu-NAME.TAG` names pretrained weights of timm's NAME.
    if name in known or (name.startswith("tu-") and timm.is_model(name[3:].split(".")[0])):
        return name
    near = nearest(name, [*known, *(f"tu-{model}" for model in timm.list_models())])
    raise InputError(
        f"unknown encoder '{name}'.{near} Known are those of segmentation_models_pytorch.encoders.get_encoder_names(),"
        " and timm's models (timm.list_models()) as tu-NAME."
    )
