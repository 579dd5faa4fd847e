"""Source `smp`: any architecture of segmentation_models_pytorch, with its own or timm's encoders."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from dfad_seg.common.errors import InputError, choose, nearest
from dfad_seg.segmentors.weights import load_encoder

# smp's arguments that are set here, or that would make the answer something else than logits (N, C, H, W).
_RESERVED = (
    "encoder_name",
    "encoder_weights",
    "in_channels",
    "classes",
    "activation",
    "aux_params",
    "kwargs",
    "self",
)


def build_smp(
    *,
    num_classes: int,
    arch: str,
    encoder_name: str = "resnet34",
    encoder_weights: str | bool | None = None,
    encoder_checkpoint: str | Path | None = None,
    encoder_options: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[nn.Module, dict[str, Any]]:
    """A network of segmentation_models_pytorch.

    Args:
        arch: an architecture of smp, in any letter case: DeepLabV3Plus, DeepLabV3, Unet, FPN, ...
        encoder_name: an encoder of smp, or a timm model as `tu-NAME`. The older spelling `timm-NAME` works
            as in smp: `timm-mobilenetv3_small_100` is `tu-tf_mobilenetv3_small_100`.
        encoder_weights: None for random weights. Anything else ("imagenet") is downloaded: needs internet.
        encoder_checkpoint: a local file of the encoder's weights; a classifier in it is ignored.
        encoder_options: passed to timm's `create_model`; for `tu-` encoders only.
        options: further arguments of the architecture (encoder_output_stride, decoder_channels, ...).

    Returns:
        The network, and the input stride that it needs.

    Raises:
        InputError: unknown architecture, encoder or option; a value that smp refuses; a failed download.
    """
    # Imported here: smp and timm take seconds, and other sources do not need them.
    import segmentation_models_pytorch as smp

    architectures = {cls.__name__: cls for cls in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    spelled = {name.lower(): name for name in architectures}
    build = choose(architectures, spelled.get(str(arch).lower(), str(arch)), "smp architecture")
    encoder_name = _known_encoder(str(encoder_name))
    known = [name for name in inspect.signature(build.__init__).parameters if name not in _RESERVED]
    for name in options:
        if name not in known:
            raise InputError(
                f"segmentor source 'smp' with arch {build.__name__} has no option"
                f" '{name}'.{nearest(name, known)} Known: {', '.join(known)}, encoder_name, encoder_weights,"
                " encoder_checkpoint, encoder_options."
            )
    if encoder_options and not encoder_name.startswith("tu-"):
        raise InputError(f"encoder_options need a timm encoder (tu-NAME); encoder_name is '{encoder_name}'.")
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", (DeprecationWarning))
            network = build(
                encoder_name=encoder_name,
                encoder_weights=encoder_weights,
                classes=num_classes,
                **options,
                **(encoder_options or {}),
            )
    except Exception as error:  # smp and timm raise what their layers raise
        raise InputError(_why_not_built(build.__name__, encoder_name, encoder_weights, error)) from error
    if encoder_checkpoint is not None:
        load_encoder(network.encoder, encoder_checkpoint)
    return network, {"stride": _input_stride(network)}


def _known_encoder(name: str) -> str:
    import timm
    from segmentation_models_pytorch.encoders import get_encoder_names, is_equivalent_to_timm_universal

    if is_equivalent_to_timm_universal(name):
        # smp's own translation of encoders that it dropped in favour of timm's.
        base = name[len("timm-") :]
        name = f"tu-tf_{base}" if base.startswith("mobilenetv3") else f"tu-{base}"
        if base.startswith("mobilenetv3") and not timm.is_model(f"tf_{base}"):
            name = f"tu-{base}"
    known = get_encoder_names()
    if name in known:
        return name
    if name.startswith("tu-"):
        # `NAME.TAG` names pretrained weights of NAME.
        if timm.is_model(name[3:].split(".")[0]):
            return name
        models = timm.list_models()
        raise InputError(
            f"unknown encoder '{name}': timm has no model '{name[3:]}'.{nearest(name[3:], models)}"
            " timm.list_models() lists them."
        )
    if timm.is_model(name):
        raise InputError(f"unknown encoder '{name}': write timm's models with the prefix, 'tu-{name}'.")
    raise InputError(
        f"unknown encoder '{name}'.{nearest(name, known)} Known are those of"
        " segmentation_models_pytorch.encoders.get_encoder_names(), and timm's models as tu-NAME."
    )


def _input_stride(network: Any) -> int:
    if not getattr(network, "requires_divisible_input_shape", True):
        return 1
    return int(network.encoder.output_stride)


def _why_not_built(arch: str, encoder: str, encoder_weights: str | bool | None, error: Exception) -> str:
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0] if lines else 'no details'}"
    if encoder_weights is not None:
        return (
            f"smp cannot build {arch} with the encoder '{encoder}' and encoder_weights {encoder_weights!r}"
            f" ({reason}). These weights are downloaded, which needs internet; without it, leave"
            " encoder_weights out and give a local file as encoder_checkpoint."
        )
    return f"smp cannot build {arch} with the encoder '{encoder}' and these options ({reason})."
