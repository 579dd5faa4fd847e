"""One flat, validated config per experiment.

Every number of the method is a key here, with the paper's values as defaults (but for the schedule, which depends on
the length and is constant by default). All mistakes in a file are reported
together, each with its key and, for a misspelt key, the nearest known one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dfad_seg.config.dataset import DatasetConfig
from dfad_seg.config.values import Decay, NonNegative, Positive, Rate, Size, Strict, Weight, apply_override, validate
from dfad_seg.errors import InputError


class SegmentorConfig(BaseModel):
    """A network. Beside these keys it takes the options of its source, which checks them itself."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    source: str
    """Where the network comes from: smp, torchvision, torchscript, torch_export, factory, or `saved` for a
    file that dfad_seg wrote and that knows its own architecture."""
    checkpoint: str | None = None
    """Weights to load, strictly; .pt, .pth or .safetensors."""

    def options(self) -> dict[str, Any]:
        """Everything but the source."""
        return self.model_dump(exclude={"source"}, exclude_none=True)


class GeneratorConfig(BaseModel):
    """The image generator, with the options of its type."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    type: str = "dcgan"
    """dcgan (the papers') or layout (conditional, any size)."""

    def options(self) -> dict[str, Any]:
        return self.model_dump(exclude={"type"})


class OptimizerConfig(Strict):
    """One player's optimiser."""

    type: Literal["sgd", "adam", "adamw"]
    lr: Rate
    """Learning rate before the schedule's factor."""
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """SGD only; default 0.9."""
    betas: tuple[Decay | Literal[0], Decay] | None = None
    """Adam and AdamW only; default (0.9, 0.999)."""
    weight_decay: Weight = 0.0

    @model_validator(mode="after")
    def _fits_type(self) -> OptimizerConfig:
        wrong = "betas" if self.type == "sgd" else "momentum"
        if getattr(self, wrong) is not None:
            raise ValueError(f"the {self.type} optimiser does not take {wrong}")
        return self


class ScheduleConfig(Strict):
    """Factor on all learning rates, by iteration."""

    type: Literal["constant", "step", "poly", "cosine"] = "constant"
    warmup: NonNegative = 0
    """Iterations of linear warm-up."""
    every: Positive | None = None
    """step: iterations between two decays."""
    gamma: Rate | None = None
    """step: the decay's factor, default 0.1."""
    power: Rate | None = None
    """poly: the exponent, default 0.9."""
    end: Weight | None = None
    """poly, cosine: the last factor, default 0."""

    @model_validator(mode="after")
    def _fits_type(self) -> ScheduleConfig:
        takes = {"constant": set(), "step": {"every", "gamma"}, "poly": {"power", "end"}, "cosine": {"end"}}
        given = {name for name in ("every", "gamma", "power", "end") if getattr(self, name) is not None}
        wrong = sorted(given - takes[self.type])
        if wrong:
            raise ValueError(f"a {self.type} schedule does not take {', '.join(wrong)}")
        if self.type == "step" and self.every is None:
            raise ValueError("a step schedule needs every: the iterations between two decays")
        return self


class EvaluationConfig(Strict):
    """How a network is scored on `dataset`."""

    split: str = "val"
    every: NonNegative = 0
    """Iterations between two evaluations; 0: at the end only. The last one is never skipped."""
    short_side: Positive | None = None
    """Resize image and labels to this shorter side; none: native size."""
    batch_size: Positive = 8
    num_workers: NonNegative = 1
    """Processes that read images; 0: none but the main one."""
    crop_size: Size | None = None
    """Height and width of a sliding window; none: whole images."""
    crop_stride: Size | None = None
    """Rows and columns between two windows; default two thirds of crop_size."""
    scales: Annotated[tuple[Rate, ...], Field(min_length=1)] = (1.0,)
    """Sizes at which each image is answered; the probabilities are averaged."""
    flip: bool = False
    """Also answer the mirrored image, and average."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Of the forward pass; default: as in training, and fp32 in eval_miou.py."""


class TrainingDataConfig(Strict):
    """Augmentation of real training images; crops have the size `image_size`."""

    split: str = "train"
    short_side: Positive | None = None
    """Resize to this shorter side first."""
    scale: tuple[Rate, Rate] = (1.0, 1.0)
    """Random scaling between these factors."""
    hflip: bool = True
    color_jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Strength of brightness, contrast and saturation changes."""
    num_workers: NonNegative = 2


class Config(Strict):
    """One experiment."""

    method: Literal["supervised", "distill_with_data", "dfad", "random_noise"]
    """supervised: train on labels. distill_with_data: distil on real images (a control). dfad: distil without
    data. random_noise: distil on uniform noise (a control)."""
    teacher: SegmentorConfig | None = None
    """Frozen; in `supervised`, the network to train, if that is to become a teacher."""
    student: SegmentorConfig | None = None
    generator: GeneratorConfig | None = None
    num_classes: Positive | None = None
    """Default: the dataset's."""
    dataset: DatasetConfig | None = None
    evaluation: EvaluationConfig | None = None
    training_data: TrainingDataConfig | None = None

    iterations: Positive = 15_000
    """dfad, random_noise: each is `student_steps` student steps (and one generator step); else one step."""
    batch_size: Positive = 64
    """Per process."""
    image_size: Size = (128, 128)
    """[height, width] of generated images or of training crops."""
    student_optimizer: OptimizerConfig = OptimizerConfig(type="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4)
    """Of the network that is trained."""
    generator_optimizer: OptimizerConfig = OptimizerConfig(type="adam", lr=1e-3)
    schedule: ScheduleConfig = ScheduleConfig()
    clip_norm: Rate | None = None
    """Bound on gradient norms."""
    ema_decay: Decay | None = None
    """Keep a moving average of the student with this decay per iteration instead of its last weights."""

    student_steps: Positive = 5
    """k, student steps per generator step."""
    final_student_steps: Positive | None = None
    """k grows to this as the schedule's factor falls to 0."""
    mixed_sizes: tuple[Size, ...] = ()
    """Sizes of generated images to train on instead of image_size, with about as many pixels per batch; needs
    generator.type: layout."""
    size_order: Literal["mixed", "progressive"] = "mixed"
    """mixed: one of mixed_sizes at random in each iteration; progressive: one after the other, in equal parts."""
    augment_photometric: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Strength of colour, contrast, brightness and sharpness changes of the images that the student sees."""
    augment_geometric: bool = False
    """Mirror and zoom the images that the student sees."""
    accumulate: Positive = 1
    """Parts into which each batch is split, one after the other, to save memory; BatchNorm sees the parts."""
    checkpoint_activations: bool = False
    """The generator computes its activations again in the backward pass instead of keeping them."""
    replay_size: NonNegative = 0
    """Generated images to remember, per size."""
    replay_steps: NonNegative = 0
    """Student steps per iteration on remembered images, beside student_steps on fresh ones."""
    replay_answers: Literal["anew", "kept"] = "anew"
    """Whether the teacher answers remembered images again, or its logits are stored with them."""
    student_loss: dict[str, Weight] = {"mae": 1.0}
    """Discrepancies that the student minimises, with weights."""
    adversarial_loss: dict[str, Weight] = {"log_mae": 1.0}
    """Discrepancies that the generator maximises, with weights."""
    adversarial_weight: Weight = 1.0
    batch_norm_prior: Weight = 0.0
    """Weight of the teacher's BatchNorm statistics in the generator's loss."""
    layout_consistency: Weight = 0.0
    """Weight of the teacher's cross-entropy against the layout; needs generator.type: layout."""
    class_balance: Weight = 0.0
    """Weight of the class balance hinge."""
    total_variation: Weight = 0.0
    """Weight of the images' total variation."""
    generator_ema_decay: Decay | None = None
    """The student's images come from a moving average of the generator with this decay per iteration."""
    generator_restart_every: NonNegative = 0
    """Iterations after which the generator starts anew; 0: never."""
    student_norm: Literal["update", "batch", "running"] = "update"
    """The student's BatchNorm in the generator's step: batch statistics that update the running ones (what the
    paper's code does), batch statistics alone, or running statistics."""
    recalibrate_batches: NonNegative = 0
    """Generated batches over which the kept student's BatchNorm statistics are recomputed."""

    focal_gamma: Weight = 0.0
    """supervised: 0 is cross-entropy, > 0 focal loss."""
    class_weights: tuple[Weight, ...] | None = None
    """supervised: one per class."""

    seed: NonNegative = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Positive = 1
    """Processes per node."""
    num_nodes: Positive = 1
    precision: Literal["32-true", "bf16-mixed", "auto"] = "32-true"
    """auto: bf16-mixed where it is faster, which is measured on a CPU; else 32-true."""
    optimize: bool = True
    """Exact rewrites of teacher and student for speed, see `segmentors.optimize_for_distillation`."""
    deterministic: bool = False
    """Only deterministic kernels (CUDA; on a CPU runs are bit-equal anyway)."""
    channels_last: bool = True
    """Memory layout of the networks; faster on CPUs and tensor cores."""
    log_every: Positive = 10
    save_every: NonNegative = 500
    """Iterations between two checkpoints; 0: at the end only."""
    preview_every: NonNegative = 0
    """Iterations between two pictures of generated images; 0: at the end only."""
    keep_checkpoints: Positive = 2

    @model_validator(mode="after")
    def _fits_method(self) -> Config:
        _check_method(self)
        return self

    @property
    def data_free(self) -> bool:
        return self.method in ("dfad", "random_noise")

    @property
    def trained_role(self) -> Literal["teacher", "student"]:
        """Which of the two networks this experiment trains."""
        return "teacher" if self.method == "supervised" and self.student is None else "student"


_GAME = {
    "student_steps",
    "accumulate",
    "final_student_steps",
    "student_loss",
    "recalibrate_batches",
    "preview_every",
    "mixed_sizes",
    "size_order",
    "augment_photometric",
    "augment_geometric",
    "replay_size",
    "replay_steps",
    "replay_answers",
}
_GENERATOR = {
    "generator",
    "generator_optimizer",
    "checkpoint_activations",
    "adversarial_loss",
    "adversarial_weight",
    "batch_norm_prior",
    "layout_consistency",
    "class_balance",
    "total_variation",
    "generator_ema_decay",
    "generator_restart_every",
    "student_norm",
}
_LABELS = {"focal_gamma", "class_weights"}
_REAL = {"training_data"}
# Keys that a method would silently ignore are refused: a setting without effect is a mistake.
_UNUSED = {
    "supervised": _GAME | _GENERATOR,
    "distill_with_data": (_GAME - {"student_loss"}) | _GENERATOR | _LABELS,
    "dfad": _LABELS | _REAL,
    "random_noise": _GENERATOR | _LABELS | _REAL,
}
_NEEDED = {
    "supervised": {"dataset"},
    "distill_with_data": {"teacher", "student", "dataset"},
    "dfad": {"teacher", "student", "generator"},
    "random_noise": {"teacher", "student"},
}


def _check_method(config: Config) -> None:
    problems = []
    unused = sorted(config.model_fields_set & _UNUSED[config.method])
    if unused:
        problems.append(f"method {config.method} does not use {', '.join(unused)}; remove")
    missing = sorted(name for name in _NEEDED[config.method] if getattr(config, name) is None)
    if missing:
        problems.append(f"method {config.method} needs {', '.join(missing)}")
    if config.method == "supervised" and (config.teacher is None) == (config.student is None):
        problems.append("method supervised trains one network: give either teacher or student")
    if config.evaluation is not None and config.dataset is None:
        problems.append("evaluation needs dataset")
    if config.dataset is None and config.num_classes is None:
        problems.append("num_classes is needed where no dataset says it")
    if config.generator is not None and config.generator.type == "noise":
        problems.append("generator.type noise has nothing to train; use method: random_noise without a generator")
    if config.layout_consistency and (config.generator is None or config.generator.type != "layout"):
        problems.append("layout_consistency needs generator.type: layout")
    if config.mixed_sizes and config.generator is not None and config.generator.type == "dcgan":
        problems.append("mixed_sizes needs a generator of any size, such as generator.type: layout")
    if config.batch_size < 2 * config.accumulate > 2:
        problems.append("accumulate leaves parts of fewer than two images, which BatchNorm needs; raise batch_size")
    if (config.replay_size > 0) != (config.replay_steps > 0):
        problems.append("replay_size and replay_steps go together: give both, or neither")
    if 0 < config.replay_size < config.batch_size:
        problems.append("replay_size must be at least batch_size, or no remembered batch can be filled")
    for key in ("student_loss", "adversarial_loss"):
        if not any(getattr(config, key).values()):
            problems.append(f"{key} needs at least one discrepancy with a weight above 0")
    if problems:
        raise ValueError("; ".join(problems))


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read a YAML config, apply `key=value` overrides (dots for nested keys), and validate.

    Raises:
        InputError: the file cannot be read, is not a mapping, or any key or value is wrong.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the config {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a mapping of config keys, not {type(values).__name__}.")
    for override in overrides or []:
        apply_override(values, override)
    return parse_config(values, where=str(path))


def parse_config(values: dict[str, Any], *, where: str = "config") -> Config:
    """Validate a mapping of config keys.

    Raises:
        InputError: lists every wrong key and value.
    """
    return validate(Config, values, where)


def dump_config(config: Config) -> str:
    """The resolved config as YAML that `load_config` reads back to an equal one."""
    values = config.model_dump(mode="json", exclude_none=True)
    # Keys that the method does not use would be refused when read back.
    kept = {key: value for key, value in values.items() if key not in _UNUSED[config.method]}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
