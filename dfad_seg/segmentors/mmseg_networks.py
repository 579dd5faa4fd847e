"""MMSegmentation's networks under this package's contract. Needs its packages, and is imported when it is asked for."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmengine.registry
import mmseg
import mmseg.models  # noqa: F401
import mmseg.registry
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import Registry, init_default_scope
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from dfad_seg.common.errors import InputError, explained, nearest, quiet
from dfad_seg.segmentors.kinds import SIGMOID, Network
from dfad_seg.segmentors.mmseg_files import named_types, plain_classes

_OWN = "mmseg::"


def build(chosen: Any, *, num_classes: int) -> Network:
    """What the source mmseg does with its `MmsegOptions`."""
    what, found = "the stored model of MMSegmentation", Config()
    if chosen.config is None:
        entry = plain_model(chosen.model)
        _check_registered(entry)
    else:
        found = read_config(chosen.config, chosen.cfg_options)
        if "model" not in found:
            raise InputError(f"the config {chosen.config} has no entry model. Give one that describes a network.")
        entry, what = plain_model(found.model), f"the model of the config {chosen.config}"
    classes, palette = dataset_classes(found)
    built = build_model(entry, what)
    if not callable(getattr(built, "encode_decode", None)):
        name = type(built).__name__
        raise InputError(f"{name} has no encode_decode, so it is no segmentor of MMSegmentation. Check model.type.")
    mask = built.out_channels == 1  # where its sigmoid is above the head's threshold
    answers = 2 if mask else int(built.num_classes)
    if answers != num_classes:
        raise InputError(
            f"{what} answers {answers} classes, and {num_classes} are needed. Correct num_classes of the experiment,"
            f" or of a new student's heads (cfg_options: {{model.decode_head.num_classes: {num_classes}}})."
        )
    preprocessor = built.data_preprocessor
    contract = normalisation(preprocessor)
    if mask:
        contract |= {"output": SIGMOID, "threshold": float(getattr(built.decode_head, "threshold", None) or 0.5)}
    if classes is not None and len(classes) == num_classes:
        contract["classes"] = classes
    palette = palette if palette is not None and len(palette) == num_classes else None
    padding, pad_value = getattr(preprocessor, "test_cfg", None), getattr(preprocessor, "pad_val", 0)
    return Network(EncodeDecode(built, padding, pad_value), contract, palette, {"model": entry})


def build_model(entry: Mapping[str, Any], what: str = "the model") -> Any:
    """A segmentor of theirs with its initial weights, drawn from torch's global generator."""
    init_default_scope("mmseg")
    # Its logger would list every tensor with how it was initialised.
    with quiet(MMLogger.get_current_instance()), explained(f"MMSegmentation cannot build {what}"):
        built = MODELS.build(ConfigDict(copy.deepcopy(dict(entry))))
        built.init_weights()
    return built


def read_config(config: str | Path, cfg_options: Mapping[str, Any] | None = None) -> Config:
    """A config file, or one of the installed package's own as `mmseg::FOLDER/NAME.py`, with entries changed."""
    path = _own_config(str(config)) if str(config).startswith(_OWN) else Path(config)
    if not path.is_file():
        raise InputError(f"the MMSegmentation config {config} does not exist. Check the path, or name one of the "
                         f"installed package's as {_OWN}FOLDER/NAME.py.")  # fmt: skip
    with explained(f"the MMSegmentation config {config} cannot be read"):  # it is a program
        found = Config.fromfile(str(path))
        found.merge_from_dict(dict(cfg_options or {}))
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
    known = _registered()
    for name in named_types(entry):
        if "." not in name and name not in (*known, "_scope_"):
            raise InputError(
                f"the stored model of MMSegmentation has a part of type '{name}', which is not registered."
                f"{nearest(name, known)} Build it from its config instead, whose custom_imports bring such parts."
            )


def _registered() -> dict[str, Any]:
    values = [value for module in (mmengine.registry, mmseg.registry) for value in vars(module).values()]
    return {name: kind for value in values if isinstance(value, Registry) for name, kind in value.module_dict.items()}


class EncodeDecode(nn.Module):
    """The logits of a segmentor of theirs at the input's resolution, by `encode_decode` of inputs padded at the right
    and bottom as in their tests: by the preprocessor's `test_cfg` (`size` or `size_divisor`) and `pad_val`."""

    unused_weights = ("model.auxiliary_head.",)
    """Names in their checkpoints begin so that belong to parts which this network does without."""

    def __init__(self, model: Any, padding: Mapping[str, Any] | None = None, pad_value: float = 0.0) -> None:
        super().__init__()
        self.model: Any = model
        self.padding = dict(padding or {})
        self.pad_value = float(pad_value)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, C, H, W) of normalised inputs (N, K, H, W)."""
        height, width = inputs.shape[-2:]
        below, right = self._missing(height, width)
        padded = F.pad(inputs, (0, right, 0, below), value=self.pad_value) if below or right else inputs
        meta = {
            "ori_shape": (height, width),
            "img_shape": (height, width),
            "pad_shape": tuple(padded.shape[-2:]),
            "padding_size": [0, right, 0, below],
        }
        count = 1 if torch.compiler.is_compiling() else len(inputs)  # heads read one, and a program is for any batch
        logits = self.model.encode_decode(padded, [dict(meta) for _ in range(count)])
        return logits if padded is inputs else logits[..., :height, :width]

    def _missing(self, height: int, width: int) -> tuple[int, int]:
        if self.padding.get("size") is not None:
            rows, columns = self.padding["size"]
            return max(rows - height, 0), max(columns - width, 0)
        divisor = self.padding.get("size_divisor") or 1
        return -height % divisor, -width % divisor


def normalisation(preprocessor: Any) -> dict[str, Any]:
    """A data preprocessor's normalisation as options of `Segmentor`; their images are read as BGR in [0, 255].

    Whether it swaps the channels is seen in what it makes of an image, as its attributes have other names from release
    to release.
    """
    given = getattr(preprocessor, "mean", None)
    channels = given.numel() if isinstance(given, Tensor) else 3
    mean, std = (_per_channel(preprocessor, *default, channels) for default in (("mean", 0.0), ("std", 1.0)))
    image = torch.arange(float(channels)).view(channels, 1, 1) + torch.zeros(channels, 2, 2)
    found = preprocessor({"inputs": [image], "data_samples": [SegDataSample()]}, False)["inputs"][0, :, :2, :2].cpu()
    for channel_order in ("rgb", "bgr"):
        shown = image.flip(0) if channel_order == "rgb" and channels == 3 else image
        if torch.allclose(found, (shown - mean) / std):
            return {
                "in_channels": channels,
                "mean": mean.flatten().tolist(),
                "std": std.flatten().tolist(),
                "input_scale": 255.0,
                "channel_order": channel_order,
            }
    raise InputError(
        f"the data preprocessor {type(preprocessor).__name__} does something else than to swap channels, subtract the"
        " mean and divide by std. Use one that does only that, such as SegDataPreProcessor."
    )


def _per_channel(preprocessor: Any, name: str, default: float, channels: int) -> Tensor:
    values = getattr(preprocessor, name, None)
    values = values.detach() if isinstance(values, Tensor) else torch.full((channels,), default)
    return values.float().cpu().view(channels, 1, 1)


def plain_model(model: Any) -> dict[str, Any]:
    """A config's `model` entry as plain values, without what only serves training on labels (auxiliary heads) or would
    be downloaded; synchronised BatchNorm becomes the ordinary one: the same weights, and a CPU can train it."""
    plain = _plain(model, "model")
    plain.pop("auxiliary_head", None)
    return plain


def _plain(value: Any, name: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item, name) for item in value if not _is_pretrained(item)]
    if isinstance(value, Mapping):
        kept = {key: item for key, item in value.items() if not _names_weights(key, item)}
        plain = {key: _plain(item, f"{name}.{key}") for key, item in kept.items()}
        kind = str(plain.get("type")).rpartition(".")[2]
        return plain | ({"type": "BN"} if kind in ("SyncBN", "MMSyncBN", "SyncBatchNorm") else {})
    if callable(value):  # a config in pure Python names classes by themselves
        own = (name for name, kind in _registered().items() if kind is value)
        return next(own, f"{value.__module__}.{value.__qualname__}")
    raise InputError(f"{name} in the config is a {type(value).__name__}: only plain values can be kept.")


def _is_pretrained(value: Any) -> bool:
    kind = value.get("type") if isinstance(value, Mapping) else None
    return getattr(kind, "__name__", str(kind)).rpartition(".")[2] in ("Pretrained", "PretrainedInit")


def _names_weights(key: str, value: Any) -> bool:
    return (key == "pretrained" and bool(value)) or (key == "init_cfg" and _is_pretrained(value))
