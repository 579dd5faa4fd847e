"""The keys of an experiment's config, their types, and which go together.

Every number of the method is a key here, with the paper's values as defaults (but for the schedule, which depends on
the length and is constant by default).
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import model_validator

from dfad_seg.config.dataset import DatasetConfig
from dfad_seg.config.sections import (
    EvaluationConfig,
    GeneratorConfig,
    OptimizerConfig,
    ReportConfig,
    ScheduleConfig,
    SegmentorConfig,
    TrainingDataConfig,
)
from dfad_seg.config.values import Decay, NonNegative, Positive, Rate, Share, Size, Strict, Weight


class Config(Strict):
    """One experiment."""

    method: Literal["supervised", "distill_with_data", "dfad", "random_noise"]
    """supervised: train on labels. distill_with_data: distil on real images (a control). dfad: distil without
    data. random_noise: distil on uniform noise (a control)."""
    teacher: SegmentorConfig | None = None
    """Frozen; in `supervised`, the network to train, if that is to become a teacher."""
    student: SegmentorConfig | None = None
    """The network that is trained; as a rule small."""
    generator: GeneratorConfig | None = None
    """What makes the images."""
    num_classes: Positive | None = None
    """Default: the dataset's."""
    dataset: DatasetConfig | None = None
    """Real images and labels; data-free methods evaluate on them, and no more."""
    evaluation: EvaluationConfig | None = None
    """Without it nothing is scored on the way."""
    training_data: TrainingDataConfig | None = None
    """Which real images are trained on, and how they are changed."""

    iterations: Positive = 15_000
    """dfad, random_noise: each is `student_steps` student steps (and one generator step); else one step."""
    batch_size: Positive = 64
    """Per process."""
    image_size: Size = (128, 128)
    """[height, width] of generated images or of training crops."""
    student_optimizer: OptimizerConfig = OptimizerConfig(type="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4)
    """Of the network that is trained."""
    generator_optimizer: OptimizerConfig = OptimizerConfig(type="adam", lr=1e-3)
    """Of the generator."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Of all learning rates."""
    clip_norm: Rate | None = None
    """Bound on gradient norms."""
    ema_decay: Decay | None = None
    """Keep a moving average of the student with this decay per iteration instead of its last weights."""

    student_steps: Positive = 5
    """k, student steps per generator step."""
    simultaneous: bool = False
    """The first student step of an iteration takes the generator step's images, and the answers they got, instead of
    fresh ones."""
    progressive_sizes: tuple[Size, ...] = ()
    """Sizes of generated images, one after the other in equal parts of the run, with about as many pixels per batch;
    the last must be image_size. Needs generator.type: layout."""
    accumulate: Positive = 1
    """Parts into which each batch is split, one after the other, to save memory; BatchNorm sees the parts."""
    replay_size: NonNegative = 0
    """Generated images to remember, per size."""
    replay_steps: NonNegative = 0
    """Student steps per iteration on remembered images, beside student_steps on fresh ones."""
    final_replay_steps: NonNegative | None = None
    """replay_steps grows to this as the schedule's factor falls to 0."""
    replay_answers: Literal["anew", "kept"] = "anew"
    """Whether the teacher answers remembered images again, or its logits are stored with them."""
    answer_pooling: Positive = 1
    """Side of the squares of pixels over which both networks' logits are averaged before the student's loss, and in the
    memory: cheap where networks enlarge their logits at the end anyway."""
    student_loss: dict[str, Weight] = {"mae": 1.0}
    """Discrepancies that the student minimises, with weights."""
    logit_adjustment: Weight = 0.0
    """α: the student's logits plus α · log(share of the class) imitate the teacher's, so that it does not overlook rare
    classes; 0.5 suits the mIoU."""
    adversarial_loss: dict[str, Weight] = {"log_mae": 1.0}
    """Discrepancies that the generator maximises, with weights."""
    distillation_temperature: Rate = 1.0
    """Divides both networks' logits in kl and jensen_shannon, for either player."""
    adversarial_weight: Weight = 1.0
    """Weight of the discrepancy in the generator's loss."""
    batch_norm_prior: Weight = 0.0
    """Weight of the teacher's BatchNorm statistics in the generator's loss."""
    layout_consistency: Weight = 0.0
    """Weight of the teacher's cross-entropy against the layout; needs generator.type: layout."""
    class_balance: Weight = 0.0
    """Weight of what the teacher's class distribution over a batch lacks to the greatest entropy."""
    one_hot: Weight = 0.0
    """Weight of the teacher's cross-entropy to its own most likely class."""
    activation_magnitude: Weight = 0.0
    """Weight of the negated mean size of the teacher's last hidden features."""
    interpolation: Literal["none", "mixup", "cutmix"] = "none"
    """Virtual samples between generated images, in place of a part of each batch of the student."""
    interpolation_share: Share = 0.5
    """Of the batch that is virtual."""
    interpolation_alpha: Rate = 1.0
    """Their shares are drawn from Beta(alpha, alpha)."""
    interpolation_labels: Literal["interpolated", "teacher"] = "interpolated"
    """The teacher's logits blended as the images are, or its answer on the virtual image."""
    activation_boundary: Weight = 0.0
    """Weight of the activation boundary loss on hidden features in the student's loss."""
    attention_transfer: Weight = 0.0
    """Weight of attention transfer on hidden features in the student's loss."""
    teacher_layers: tuple[str, ...] | None = None
    """Layers of the two, by module names in pairs; default: the last activations at output strides 8 and 16."""
    student_layers: tuple[str, ...] | None = None
    """Those of the student, in the order of teacher_layers."""
    student_norm: Literal["update", "batch", "running"] = "update"
    """The student's BatchNorm in the generator's step: batch statistics that update the running ones (what the
    paper's code does), batch statistics alone, or running statistics."""

    focal_gamma: Weight = 0.0
    """supervised: 0 is cross-entropy, > 0 focal loss."""
    class_weights: tuple[Weight, ...] | None = None
    """supervised: one per class."""

    seed: NonNegative = 0
    """Of all random numbers."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where there is one."""
    devices: Positive = 1
    """Processes per node."""
    num_nodes: Positive = 1
    """Machines."""
    precision: Literal["32-true", "bf16-mixed", "auto"] = "32-true"
    """auto: bf16-mixed where it is faster, which is measured on a CPU; else 32-true."""
    optimize: bool = True
    """Exact rewrites of teacher and student for speed, see `segmentors.optimize_for_distillation`."""
    deterministic: bool = False
    """Only deterministic kernels (CUDA; on a CPU runs are bit-equal anyway)."""
    channels_last: bool = True
    """Memory layout of the networks; faster on CPUs and tensor cores."""
    log_every: Positive = 10
    """Iterations between two lines of metrics."""
    save_every: NonNegative = 500
    """Iterations between two checkpoints; 0: at the end only."""
    preview_every: NonNegative = 0
    """Iterations between two pictures of generated images; 0: at the end only."""
    keep_checkpoints: Positive = 2
    """The newest so many stay."""
    loggers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ("tensorboard",)
    """Where metrics go beside metrics.jsonl."""
    report: ReportConfig = ReportConfig()
    """What the end of the run adds to its report."""

    @model_validator(mode="after")
    def _fits_method(self) -> Config:
        _check_method(self)
        return self

    @property
    def painters(self) -> int:
        """Of the generator: each of them needs an image in every (part of a) batch."""
        number = 1 if self.generator is None else self.generator.options().get("painters", 1)
        return number if isinstance(number, int) else 1  # what is wrong with it, the generator says

    def unmixed(self, batch: int) -> int | None:
        """How many images of a batch, or of its smallest part with `accumulate`, `interpolation` leaves as they are for
        the activation regularisers, which look at images that both networks see; None where these need none."""
        regularised = self.activation_boundary or self.attention_transfer
        if not regularised or self.interpolation == "none" or self.interpolation_labels == "teacher":
            return None
        part = batch // self.accumulate
        return part - math.ceil(self.interpolation_share * part)

    @property
    def data_free(self) -> bool:
        return self.method in ("dfad", "random_noise")

    @property
    def trained_role(self) -> Literal["teacher", "student"]:
        """Which of the two networks this experiment trains."""
        return "teacher" if self.method == "supervised" and self.student is None else "student"


_BETWEEN = {"interpolation", "interpolation_share", "interpolation_alpha", "interpolation_labels"}
_FEATURES = {"activation_boundary", "attention_transfer", "teacher_layers", "student_layers"}
# What asks the teacher about other images than those of the generator's own step.
_ANEW = {
    "activation_boundary",
    "attention_transfer",
}
_GAME = {
    "student_steps",
    "accumulate",
    "student_loss",
    "logit_adjustment",
    "preview_every",
    "progressive_sizes",
    "replay_size",
    "replay_steps",
    "final_replay_steps",
    "replay_answers",
    "answer_pooling",
    *_BETWEEN,
    *_FEATURES,
}
_GENERATOR = {
    "generator",
    "generator_optimizer",
    "adversarial_loss",
    "adversarial_weight",
    "batch_norm_prior",
    "layout_consistency",
    "class_balance",
    "one_hot",
    "activation_magnitude",
    "student_norm",
    "simultaneous",
}
_LABELS = {"focal_gamma", "class_weights"}
_REAL = {"training_data"}
TEMPERED = {"kl", "jensen_shannon"}
# Keys that a method would silently ignore are refused: a setting without effect is a mistake.
UNUSED = {
    "supervised": _GAME | _GENERATOR | {"distillation_temperature"},
    "distill_with_data": (_GAME - {"student_loss", "logit_adjustment", "answer_pooling"}) | _GENERATOR | _LABELS,
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
    unused = sorted(config.model_fields_set & UNUSED[config.method])
    if unused:
        problems.append(f"method {config.method} does not use {', '.join(unused)}; remove")
    missing = sorted(name for name in _NEEDED[config.method] if getattr(config, name) is None)
    if missing:
        problems.append(f"method {config.method} needs {', '.join(missing)}")
    if config.method == "supervised" and (config.teacher is None) == (config.student is None):
        problems.append("method supervised trains one network: give either teacher or student")
    if config.evaluation is not None and config.dataset is None:
        problems.append("evaluation needs dataset")
    if config.num_classes == 1:
        problems.append(
            "num_classes is 1, and a softmax over one class is constant: for a network with one sigmoid output x, give "
            "two classes with the logits 0 and x, through source: factory"
        )
    if config.dataset is None and config.num_classes is None:
        problems.append("num_classes is needed where no dataset says it")
    if config.generator is not None and config.generator.type == "noise":
        problems.append("generator.type noise has nothing to train; use method: random_noise without a generator")
    if config.layout_consistency and (config.generator is None or config.generator.type != "layout"):
        problems.append("layout_consistency needs generator.type: layout")
    if config.progressive_sizes and config.generator is not None and config.generator.type == "dcgan":
        problems.append("progressive_sizes needs a generator of any size, such as generator.type: layout")
    if (config.replay_size > 0) != (config.replay_steps > 0):
        problems.append("replay_size and replay_steps go together: give both, or neither")
    if config.final_replay_steps is not None and not config.replay_size:
        problems.append("final_replay_steps needs replay_size and replay_steps")
    if 0 < config.replay_size < config.batch_size:
        problems.append("replay_size must be at least batch_size, or no remembered batch can be filled")
    if not config.replay_size and _changed(config, {"replay_answers"}):
        problems.append("replay_answers needs replay_size and replay_steps")
    if config.progressive_sizes and config.progressive_sizes[-1] != config.image_size:
        last, base = ("x".join(map(str, size)) for size in (config.progressive_sizes[-1], config.image_size))
        problems.append(f"progressive_sizes ends with {last}, and image_size is {base}: let the last be image_size")
    if config.final_replay_steps is not None and config.schedule.type == "constant":
        problems.append("final_replay_steps needs a schedule that falls, and schedule.type is constant")
    if config.batch_size < 2 * config.accumulate > 2:
        problems.append("accumulate leaves parts of fewer than two images, which BatchNorm needs; raise batch_size")
    if config.batch_size // config.accumulate < config.painters:
        problems.append(
            f"generator.painters is {config.painters}, and a batch (or a part of one, with accumulate) has fewer "
            "images, so some would never learn; raise batch_size"
        )
    attack = config.adversarial_loss if config.adversarial_weight else {}
    used = {name for losses in (config.student_loss, attack) for name, w in losses.items() if w}
    if config.distillation_temperature != 1 and not used & TEMPERED:
        problems.append(f"distillation_temperature has no effect without one of {', '.join(sorted(TEMPERED))}")
    if config.interpolation == "none" and (changed := _changed(config, _BETWEEN)):
        problems.append(f"{changed} needs interpolation: mixup or cutmix")
    if not config.activation_boundary and not config.attention_transfer:
        if changed := _changed(config, _FEATURES):
            problems.append(f"{changed} needs activation_boundary or attention_transfer above 0")
    elif config.unmixed(config.batch_size) == 0:
        problems.append(
            "activation_boundary and attention_transfer need images that teacher and student both see, and with "
            "this interpolation_share a batch (or a part of one, with accumulate) has none: lower it, or set "
            "interpolation_labels: teacher"
        )
    if config.simultaneous and (changed := _changed(config, _ANEW)):
        problems.append(f"{changed} cannot go with simultaneous, where the generator's own images keep their answers")
    for key in ("student_loss", "adversarial_loss"):
        if not any(getattr(config, key).values()):
            problems.append(f"{key} needs at least one discrepancy with a weight above 0")
    if problems:
        raise ValueError("; ".join(problems))


def _changed(config: Config, keys: set[str]) -> str:
    """Those of the keys that have not their default value."""
    return ", ".join(sorted(k for k in keys if getattr(config, k) != Config.model_fields[k].default))
