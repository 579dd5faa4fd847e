"""Config to objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from torch import nn

from dfad_seg.common.errors import InputError
from dfad_seg.config import (
    Config,
    EvaluationConfig,
    GeneratorConfig,
    SegmentorConfig,
    TrainingDataConfig,
)
from dfad_seg.datasets import (
    MetaInfo,
    SegmentationDataset,
    Transform,
    build_dataset,
    dataset_info,
    eval_transform,
    train_loader,
    train_transform,
)
from dfad_seg.datasets.metainfo import bit_palette
from dfad_seg.distill import GameSettings
from dfad_seg.distill.hooks import Evaluate
from dfad_seg.distill.world import reduced
from dfad_seg.evaluation import Inference, SegmentationMetrics, evaluate_miou
from dfad_seg.generators import ImageGenerator, build_generator
from dfad_seg.objectives import (
    PRIORS,
    ClassShares,
    FeatureMatching,
    GeneratorObjective,
    Interpolation,
    LogitAdjustment,
    build_priors,
    weighted_discrepancy,
)
from dfad_seg.recipes.samples import EvaluationSamples, evaluation_loader, warn_of_labels
from dfad_seg.segmentors import Segmentor, build_segmentor, class_frequencies, freeze, last_layers, load_segmentor


def meta_info(config: Config) -> MetaInfo:
    """Classes, palette and ignored label of the experiment; numbered classes where no data set names them."""
    if config.dataset is not None:
        info = dataset_info(config.dataset.type, config.dataset.root, **config.dataset.options())
        if config.num_classes not in (None, info.num_classes):
            raise InputError(
                f"num_classes is {config.num_classes}, but {config.dataset.type} has {info.num_classes} classes. "
                "Remove num_classes or correct it."
            )
        return info
    count = config.num_classes or 0
    return MetaInfo(
        classes=tuple(f"class_{i}" for i in range(count)),
        palette=bit_palette(count),
        named=False,
    )


def open_dataset(config: Config, split: str, transform: Transform) -> SegmentationDataset:
    """A split of the config's data set.

    Raises:
        InputError: what is wrong with the section or the files, or other classes than `meta_info`'s in this split.
    """
    assert config.dataset is not None
    section = config.dataset
    dataset = build_dataset(section.type, section.root, split, transform, **section.options())
    expected = meta_info(config).classes
    if dataset.metainfo.classes != expected:
        raise InputError(
            f"split '{split}' of the data set at {section.root} has the classes {', '.join(dataset.metainfo.classes)}, "
            f"and another split has {', '.join(expected)}. All splits need the same classes in the same order."
        )
    return dataset


def build_network(section: SegmentorConfig, role: str, info: MetaInfo) -> Segmentor:
    """The teacher or student of a config section, with its checkpoint loaded.

    Raises:
        InputError: whatever is wrong with the section, named by its role; other classes than `info`'s.
    """
    options = section.options()
    try:
        if section.source == "saved":
            network = _load_saved(options)
        else:
            network = build_segmentor(section.source, num_classes=info.num_classes, **options)
    except InputError as error:
        raise InputError(f"{role}: {error}") from None
    check_classes(network, role, info)
    return network


def check_classes(network: Segmentor, what: str, info: MetaInfo) -> None:
    """A network must answer the experiment's classes, and in the same order where both say their names."""
    if network.num_classes != info.num_classes:
        raise InputError(
            f"{what}: the network answers {network.num_classes} classes, and this experiment has {info.num_classes}. "
            "Teacher, student and data set need the same classes."
        )
    if network.classes is not None and info.named and network.classes != info.classes:
        place, (theirs, ours) = next(
            (i, pair) for i, pair in enumerate(zip(network.classes, info.classes, strict=True)) if pair[0] != pair[1]
        )
        raise InputError(
            f"{what}: its class {place} is '{theirs}', and this experiment's is '{ours}'. "
            "Teacher, student and data set need the same classes in the same order."
        )


def _load_saved(options: dict[str, Any]) -> Segmentor:
    unknown = sorted(options.keys() - {"checkpoint", "trust"})
    if unknown:
        raise InputError(f"source saved takes checkpoint and trust, not {', '.join(unknown)}.")
    if "checkpoint" not in options:
        raise InputError("source saved needs checkpoint: a file that a dfad_seg run wrote.")
    trust = options.get("trust", False)
    if not isinstance(trust, bool):
        raise InputError(f"trust is {trust!r}; it must be true or false.")
    return load_segmentor(options["checkpoint"], trust=trust)


def build_teacher(config: Config, info: MetaInfo) -> Segmentor:
    """The frozen teacher of a distillation.

    Raises:
        InputError: it would have random weights.
    """
    assert config.teacher is not None
    if config.teacher.source in ("smp", "torchvision", "mmseg") and config.teacher.checkpoint is None:
        raise InputError("teacher: it has no checkpoint, so its weights would be random. Give teacher.checkpoint.")
    return freeze(build_network(config.teacher, "teacher", info))


def build_game(
    config: Config, teacher: nn.Module, num_classes: int, adjustment: LogitAdjustment | None = None
) -> tuple[ImageGenerator, GeneratorObjective | None]:
    """The generator and its objective; noise and None for the control."""
    generator = fresh_generator(config, teacher, num_classes)
    if config.generator is None:
        return generator, None
    weights = {name: getattr(config, name) for name in PRIORS}
    if not config.adversarial_weight and not any(weights.values()):
        raise InputError(
            f"the generator has nothing to learn: raise adversarial_weight or one of {', '.join(weights)}."
        )
    objective = GeneratorObjective(
        weighted_discrepancy(config.adversarial_loss, temperature=config.distillation_temperature),
        adversarial_weight=config.adversarial_weight,
        priors=build_priors(
            weights,
            teacher=teacher,
            options={
                "activation_magnitude": {"num_classes": num_classes},
            },
        ),
        class_shares=_class_shares(config.generator, teacher),
        adjustment=adjustment,
    )
    return generator, objective


def _class_shares(section: GeneratorConfig, teacher: nn.Module) -> ClassShares | None:
    if section.options().get("class_frequencies") != "moments":
        return None
    assert isinstance(teacher, Segmentor), "frequencies of pixels are asked for, and the teacher is a classifier"
    norm, _ = last_layers(teacher)
    return ClassShares(norm, class_frequencies(teacher).to(norm.weight.device))


def fresh_generator(config: Config, teacher: nn.Module, num_classes: int) -> ImageGenerator:
    """The config's generator with new weights; uniform noise for the control.

    Raises:
        InputError: an option is unknown or wrong, or the teacher does not show the class frequencies asked for.
    """
    if config.generator is None:
        return build_generator("noise", num_classes=num_classes, image_size=config.image_size)
    if config.generator.type == "layout" and not isinstance(teacher, Segmentor):
        raise InputError(
            "generator.type: layout paints maps of classes for a teacher that answers every pixel, and this one is a "
            "classifier. Use generator.type: dcgan."
        )
    options = config.generator.options()
    if isinstance(teacher, Segmentor) and options.get("class_frequencies") in ("statistics", "moments"):
        options["class_frequencies"] = class_frequencies(teacher).tolist()
    return build_generator(config.generator.type, num_classes=num_classes, image_size=config.image_size, **options)


def game_settings(config: Config) -> GameSettings:
    """The numbers of the data-free loop."""
    return GameSettings(
        iterations=config.iterations,
        warmup=config.schedule.warmup,
        student_steps=config.student_steps,
        simultaneous=config.simultaneous,
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        image_size=config.image_size,
        progressive_sizes=config.progressive_sizes,
        student_norm=config.student_norm,
        clip_norm=config.clip_norm,
        ema_decay=config.ema_decay,
        replay_size=config.replay_size,
        replay_steps=config.replay_steps,
        final_replay_steps=config.final_replay_steps,
        replay_answers=config.replay_answers,
        answer_pooling=config.answer_pooling,
        seed=config.seed,
    )


def build_interpolation(config: Config) -> Interpolation | None:
    """The student's virtual samples, or None if the config wants none."""
    if config.interpolation == "none":
        return None
    return Interpolation(
        config.interpolation,
        alpha=config.interpolation_alpha,
        share=config.interpolation_share,
        labels=config.interpolation_labels,
    )


def build_adjustment(config: Config, num_classes: int) -> LogitAdjustment | None:
    """What shifts the student's doubts towards rare classes, or None if the config wants nothing of the kind."""
    return LogitAdjustment(num_classes, config.logit_adjustment) if config.logit_adjustment else None


def build_features(config: Config, *, teacher: nn.Module, student: nn.Module) -> FeatureMatching | None:
    """The activation regularisers, or None if the config wants none.

    Raises:
        InputError: a network shows no layers, or has none of a given name.
    """
    if not config.activation_boundary and not config.attention_transfer:
        return None
    return FeatureMatching(
        teacher=teacher,
        student=student,
        image_size=config.image_size,
        boundary_weight=config.activation_boundary,
        attention_weight=config.attention_transfer,
        teacher_layers=config.teacher_layers,
        student_layers=config.student_layers,
    )


Network = TypeVar("Network", bound=nn.Module)


def to_layout(config: Config, network: Network) -> Network:
    """Apply the config's memory layout to networks that torch may rearrange (compiled ones stay as they are)."""
    if config.channels_last and not any(isinstance(m, torch.jit.ScriptModule) for m in network.modules()):
        return network.to(memory_format=torch.channels_last)
    return network


def training_batches(config: Config, fabric: Fabric) -> Callable[[int], Any]:
    """`(iteration) -> loader` over augmented real images from that iteration on."""
    assert config.dataset is not None
    section = config.training_data or TrainingDataConfig()
    transform = train_transform(
        crop_size=config.image_size,
        short_side=section.short_side,
        scale=section.scale,
        hflip=section.hflip,
        color_jitter=section.color_jitter,
    )
    dataset = open_dataset(config, section.split, transform)
    if fabric.is_global_zero:
        warn_of_labels(dataset)

    def batches_from(iteration: int) -> Any:
        return train_loader(
            dataset,
            batch_size=config.batch_size,
            iterations=config.iterations,
            seed=config.seed,
            start_iteration=iteration,
            num_workers=section.num_workers,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )

    return batches_from


def evaluation_dataset(config: Config, section: EvaluationConfig, split: str | None = None) -> SegmentationDataset:
    """The images that are scored, at the size that the section asks for; `split` instead of the section's."""
    return open_dataset(config, split or section.split, eval_transform(short_side=section.short_side))


def build_evaluate(config: Config, fabric: Fabric, info: MetaInfo) -> Evaluate | None:
    """`(network) -> scalars` on the config's evaluation split, or None if it wants none."""
    if config.evaluation is None:
        return None
    assert config.dataset is not None
    section = config.evaluation
    inference = inference_of(section)
    dataset = evaluation_dataset(config, section)
    if fabric.is_global_zero:
        warn_of_labels(dataset)
    loader = evaluation_loader(
        EvaluationSamples(dataset), section, rank=fabric.global_rank, world_size=fabric.world_size
    )

    def evaluate(network: nn.Module) -> dict[str, float]:
        metrics = evaluate_miou(
            network,
            loader,
            num_classes=info.num_classes,
            classes=info.classes,
            ignore_index=info.ignore_index,
            device=fabric.device,
            autocast=fabric.autocast if section.precision == "auto" else None,
            inference=inference,
            all_reduce=lambda counts: reduced(fabric, counts, "sum"),
        )
        return metric_scalars(metrics, section.split)

    return evaluate


def inference_of(section: EvaluationConfig) -> Inference:
    """How an evaluation section wants a network to be applied.

    Raises:
        InputError: windows that make no sense.
    """
    keys = ("crop_size", "crop_stride", "scales", "flip")
    try:
        return Inference(precision=section.precision, **{key: getattr(section, key) for key in keys})
    except ValueError as error:
        raise InputError(f"evaluation: {error}") from None


def metric_scalars(metrics: SegmentationMetrics, split: str) -> dict[str, float]:
    """Flat names for logs: `val/mIoU`, `val/IoU/car`, …; fractions in [0, 1]."""
    scalars = {f"{split}/{name}": float(getattr(metrics, name)) for name in ("mIoU", "mAcc", "aAcc")}
    return scalars | {f"{split}/IoU/{name}": float(iou) for name, iou in zip(metrics.classes, metrics.iou, strict=True)}
