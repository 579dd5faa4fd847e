"""MMSegmentation's networks under this package's contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.segmentors import Segmentor


class EncodeDecode(nn.Module):
    """The logits of a segmentor of theirs, at the input's resolution: their preprocessor's padding and `encode_decode`.

    Args:
        model: a segmentor of MMSegmentation.
        padding: the preprocessor's `test_cfg`: `size` (height, width) or `size_divisor`, to which their tests pad at
            the right and bottom.
        pad_value: with which they pad, after normalisation.
    """

    unused_weights = ("model.auxiliary_head.",)
    """Names in their checkpoints begin so that belong to parts which this network does without."""

    def __init__(self, model: Any, padding: Mapping[str, Any] | None = None, pad_value: float = 0.0) -> None:
        super().__init__()
        self.model: Any = model
        self.padding = dict(padding or {})
        self.pad_value = float(pad_value)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, C, H, W) of normalised inputs (N, 3, H, W)."""
        height, width = inputs.shape[-2:]
        below, right = self._missing(height, width)
        padded = F.pad(inputs, (0, right, 0, below), value=self.pad_value) if below or right else inputs
        meta = {
            "ori_shape": (height, width),
            "img_shape": (height, width),
            "pad_shape": tuple(padded.shape[-2:]),
            "padding_size": [0, right, 0, below],
        }
        logits = self.model.encode_decode(padded, [dict(meta) for _ in range(len(inputs))])
        return logits if padded is inputs else logits[..., :height, :width]

    def _missing(self, height: int, width: int) -> tuple[int, int]:
        if self.padding.get("size") is not None:
            rows, columns = self.padding["size"]
            return max(rows - height, 0), max(columns - width, 0)
        divisor = self.padding.get("size_divisor") or 1
        return -height % divisor, -width % divisor


def as_segmentor(model: Any, classes: list[str] | None = None) -> Segmentor:
    """A segmentor of theirs as one of ours: RGB images in [0, 1] → logits.

    Raises:
        InputError: it is none that answers logits per class.
    """
    name = type(model).__name__
    if not callable(getattr(model, "encode_decode", None)):
        raise InputError(f"{name} has no encode_decode, so it is no segmentor of MMSegmentation. Check model.type.")
    if model.out_channels != model.num_classes:
        raise InputError(
            f"{name} answers {model.out_channels} channel for {model.num_classes} classes, by a threshold. Needed is a"
            " channel per class: set out_channels of its decode_head to its num_classes and train it so."
        )
    preprocessor = model.data_preprocessor
    padding, pad_value = getattr(preprocessor, "test_cfg", None), getattr(preprocessor, "pad_val", 0)
    network = EncodeDecode(model, padding, pad_value)
    return Segmentor(network, num_classes=int(model.num_classes), classes=classes, **normalisation(preprocessor))


def normalisation(preprocessor: Any) -> dict[str, Any]:
    """A data preprocessor's normalisation as options of `Segmentor`; their images are read as BGR in [0, 255].

    Whether it swaps the channels is seen in what it makes of an image, as its attributes have other names from release
    to release.

    Raises:
        InputError: it does something else than to swap channels, subtract the mean and divide.
    """
    mean, std = (_three(getattr(preprocessor, name, None), value) for name, value in (("mean", 0.0), ("std", 1.0)))
    image = torch.arange(3.0).view(3, 1, 1) + torch.zeros(3, 2, 2)
    found = preprocessor({"inputs": [image], "data_samples": [SegDataSample()]}, False)["inputs"][0, :, :2, :2].cpu()
    for channel_order in ("rgb", "bgr"):
        shown = image.flip(0) if channel_order == "rgb" else image
        if torch.allclose(found, (shown - mean) / std):
            return {
                "mean": mean.flatten().tolist(),
                "std": std.flatten().tolist(),
                "input_scale": 255.0,
                "channel_order": channel_order,
            }
    raise InputError(
        f"the data preprocessor {type(preprocessor).__name__} does something else than to swap channels, subtract the"
        " mean and divide by std. Use one that does only that, such as SegDataPreProcessor."
    )


def _three(values: Any, default: float) -> Tensor:
    return values.detach().float().cpu().view(3, 1, 1) if isinstance(values, Tensor) else torch.full((3, 1, 1), default)


def plain_model(model: Any, *, keep_training: bool = False) -> dict[str, Any]:
    """A config's `model` entry as plain values, without its auxiliary heads, which only serve training on labels.

    Args:
        keep_training: leave the rest as it is. If not, pretrained weights, which would be downloaded, are left out,
            and synchronised BatchNorm becomes the ordinary one: the same weights, and a CPU can train it.

    Raises:
        InputError: an entry that is neither plain nor a class.
    """
    plain = _plain(model, "model", keep_training)
    plain.pop("auxiliary_head", None)
    return plain


def _plain(value: Any, name: str, keep: bool) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item, name, keep) for item in value if keep or not _is_pretrained(item)]
    if isinstance(value, Mapping):
        kept = {key: item for key, item in value.items() if keep or not _names_weights(key, item)}
        plain = {key: _plain(item, f"{name}.{key}", keep) for key, item in kept.items()}
        if not keep and plain.get("type") in ("SyncBN", "MMSyncBN"):
            plain["type"] = "BN"
        return plain
    if callable(value):
        return value.__name__  # a config in pure Python names classes by themselves
    raise InputError(f"{name} in the config is a {type(value).__name__}: only plain values can be kept.")


def _is_pretrained(value: Any) -> bool:
    kind = value.get("type") if isinstance(value, Mapping) else None
    return getattr(kind, "__name__", str(kind)).rpartition(".")[2] in ("Pretrained", "PretrainedInit")


def _names_weights(key: str, value: Any) -> bool:
    return (key == "pretrained" and bool(value)) or (key == "init_cfg" and _is_pretrained(value))
