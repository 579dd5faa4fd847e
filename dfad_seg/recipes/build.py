"""A config becomes networks, images and losses; nothing is trained yet."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dfad_seg.common.errors import InputError, printable
from dfad_seg.config import Config, GameConfig
from dfad_seg.datasets import DATASETS, EvalTransform, MetaInfo, SegmentationDataset, TrainTransform, train_loader
from dfad_seg.datasets.base import Transform
from dfad_seg.distill import DataFree, Losses, WithData, losses_of
from dfad_seg.distill.hooks import Evaluate
from dfad_seg.distill.seeds import derived_seed
from dfad_seg.distill.training import reduced
from dfad_seg.evaluation import EvaluationOptions, SegmentationMetrics, evaluate_miou
from dfad_seg.generators import GENERATORS, ImageGenerator, NoiseGenerator
from dfad_seg.recipes.cutting import cut_student
from dfad_seg.recipes.samples import EvaluationSamples, evaluation_loader, warn_of_labels
from dfad_seg.segmentors import Segmentor, build_segmentor, freeze, is_cut_of, load_segmentor, optimize_for_distillation
from dfad_seg.segmentors.saved import read_segmentor_file


@dataclass
class Experiment:
    """The networks of a config, built and loaded."""

    config: Config
    info: MetaInfo
    trained: Segmentor
    teacher: Segmentor | None = None
    """Frozen; None for supervised training."""
    generator: ImageGenerator | None = None
    """For data-free training only."""
    losses: Losses | None = None
    """None for supervised training."""

    def networks(self, trained: nn.Module) -> dict[str, nn.Module]:
        """By role, the teacher first, with `trained` in the place of the trained one."""
        teacher = {} if self.teacher is None else {"teacher": self.teacher}
        return teacher | {self.config.trained_role: trained}

    def fast_teacher(self) -> Segmentor:
        """The teacher rewritten for speed, exactly; what looks at its layers keeps looking at those of `teacher`."""
        assert self.teacher is not None and self.losses is not None
        fold = not self.losses.look_inside
        size = self.config.image_size
        return optimize_for_distillation(self.teacher, size, trainable=False, fold_batch_norm=fold)


def build_experiment(
    config: Config, device: torch.device | str = "cpu", student_as_cut: Path | None = None
) -> Experiment:
    """Build teacher, trained network and generator; the same seed gives the same weights.

    A student that is to be cut is cut here, which takes minutes on `device`, or read from the file `student_as_cut`.
    """
    info = meta_info(config)
    if config.evaluation is not None:
        evaluation_dataset(config, config.evaluation)  # what is wrong with it is said before minutes of cutting
    torch.manual_seed(derived_seed(config.seed, 0, 0, "initialisation"))
    section = config.teacher if config.trained_role == "teacher" else config.student
    assert section is not None
    trained = None
    if not config.cuts:
        trained = to_layout(build_network(section.name, section.values(), config.trained_role, info))
    if not isinstance(config, WithData):
        assert trained is not None
        return Experiment(config, info, trained)
    teacher = to_layout(build_teacher(config, info))
    generator = build_generator(config, teacher)
    losses = losses_of(config, teacher=teacher, student=trained or teacher, generator=generator)
    if trained is None:
        if student_as_cut is None:
            trained = cut_student(config, teacher, generator, losses, device)
        else:
            trained = load_segmentor(student_as_cut, trust=is_cut_of(student_as_cut, teacher))
        if losses.features is not None:  # they look into the student
            losses.features = losses_of(config, teacher=teacher, student=trained, generator=generator).features
    if teacher.in_channels != trained.in_channels:
        raise InputError(
            f"the teacher takes images of {teacher.in_channels} channels, and the student of {trained.in_channels}."
            f" Set student.in_channels to {teacher.in_channels}, or take another student."
        )
    return Experiment(config, info, to_layout(trained), teacher, generator, losses)


def build_generator(config: Config, network: Segmentor) -> ImageGenerator | None:
    """The generator of a data-free experiment, of images for `network`; uniform noise for the control."""
    if isinstance(config, GameConfig):
        kind = GENERATORS[config.generator.name]
        context = {"classes": network.num_classes, "size": config.image_size, "channels": network.in_channels}
        return to_layout(kind.build(config.generator.options, **context))
    return NoiseGenerator(network.in_channels) if isinstance(config, DataFree) else None


def meta_info(config: Config) -> MetaInfo:
    """Classes, palette and ignored label of the experiment; numbered classes where no data set names them."""
    if config.dataset is None or config.unnamed:
        return MetaInfo(tuple(f"class_{i}" for i in range(config.num_classes or 0)), named=False)
    kind: Any = DATASETS[config.dataset.name].build  # a class
    info: MetaInfo = kind.describe(config.dataset.options)
    if config.num_classes not in (None, info.num_classes):
        raise InputError(
            f"num_classes is {config.num_classes}, but {config.dataset.name} has {info.num_classes} classes. "
            "Remove num_classes or correct it."
        )
    return info


def build_network(source: str, values: Mapping[str, Any], role: str, info: MetaInfo) -> Segmentor:
    """A teacher or student from its source and the options of that, with its checkpoint loaded."""
    try:
        if source == "saved":  # what it predicts is compared below, by name
            network = load_segmentor(values["checkpoint"], trust=values.get("trust", False))
        else:
            network = build_segmentor(source, num_classes=info.num_classes, **values)
    except InputError as error:
        raise InputError(f"{role}: {error}") from None
    check_classes(network, role, info)
    return network


def build_teacher(config: Config, info: MetaInfo) -> Segmentor:
    """The frozen teacher of a distillation."""
    assert config.teacher is not None
    random = ("smp", "torchvision", "transformers", "mmseg")
    if config.teacher.name in random and not {"checkpoint", "pretrained"} & set(config.teacher.values()):
        raise InputError("teacher: it has no checkpoint, so its weights would be random. Give teacher.checkpoint.")
    return freeze(build_network(config.teacher.name, config.teacher.values(), "teacher", info))


def check_classes(network: Segmentor, what: str, info: MetaInfo) -> None:
    """A network must predict the experiment's classes, and in the same order where both say their names."""
    if network.num_classes != info.num_classes:
        names = f" ({printable(', '.join(info.classes))})" if info.named else ""
        raise InputError(
            f"{what}: the network predicts {network.num_classes} classes, and this experiment has {info.num_classes}"
            f"{names}. Teacher, student and data set need the same classes."
        )
    if network.classes is not None and info.named and network.classes != info.classes:
        place, (theirs, ours) = next(
            (i, pair) for i, pair in enumerate(zip(network.classes, info.classes, strict=True)) if pair[0] != pair[1]
        )
        raise InputError(
            f"{what}: its class {place} is '{theirs}', and this experiment's is '{ours}'. Teacher, student and data set"
            " need the same classes in the same order. Where only a name differs, change it in the data set."
        )


def to_layout(network: Any) -> Any:
    """Channels last, which is faster on CPUs and tensor cores; compiled networks stay as they are."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        return network
    return network.to(memory_format=torch.channels_last)


def open_dataset(config: Config, split: str, transform: Transform | None) -> SegmentationDataset:
    """A split of the config's data set."""
    assert config.dataset is not None
    dataset = DATASETS[config.dataset.name].build(config.dataset.options, split, transform=transform)
    expected = meta_info(config).classes
    if dataset.labelled and dataset.metainfo.classes != expected:
        raise InputError(
            f"split '{split}' of the data set has the classes {', '.join(dataset.metainfo.classes)}, "
            f"and another split has {', '.join(expected)}. All splits need the same classes in the same order."
        )
    dataset.channels = image_channels(config)
    return dataset


def image_channels(config: Config) -> int:
    """Of the images that the networks take: what a section says, or the file of a saved network; else 3."""
    for section in (config.teacher, config.student):
        if section is not None and section.name == "saved":
            with suppress(InputError):  # who needs the network says what is wrong; stored predictions need none
                return int(read_segmentor_file(section.options.checkpoint)["spec"].get("in_channels", 3))
        if channels := getattr(section.options if section is not None else None, "in_channels", None):
            return int(channels)
    return 3


def training_batches(config: Config, fabric: Fabric) -> Callable[[int], Iterable[dict[str, Any]]]:
    """`(iteration) -> loader` over augmented real images from that iteration on."""
    section = config.training_data  # type: ignore[attr-defined]
    transform = TrainTransform(section, config.image_size, image_channels(config))
    dataset = open_dataset(config, section.split, transform)
    if not dataset.labelled and config.method == "supervised":
        raise InputError("the data set has no labels to train on. Give dataset.ann_dir, or distil a teacher.")
    if fabric.is_global_zero:
        warn_of_labels(dataset)

    def batches_from(iteration: int) -> Iterable[dict[str, Any]]:
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


def evaluation_dataset(config: Config, section: EvaluationOptions) -> SegmentationDataset:
    """The images that are scored, at the size that the section asks for."""
    return open_dataset(config, section.split, EvalTransform(short_side=section.short_side))


def scored(
    config: Config, fabric: Fabric, info: MetaInfo, network: nn.Module, batches: Iterable[Any], **more: Any
) -> SegmentationMetrics:
    """What a network reaches on batches, applied as the config's evaluation says; `more` goes to `evaluate_miou`."""
    inference = config.evaluation
    assert inference is not None
    if inference.precision == "auto" and fabric.strategy.precision.precision == "bf16-mixed":  # as it is trained
        inference = replace(inference, precision="bf16")
    classes: dict[str, Any] = {"num_classes": info.num_classes, "classes": info.classes}
    return evaluate_miou(network, batches, device=fabric.device, inference=inference, **classes, **more)


def build_evaluate(config: Config, fabric: Fabric, info: MetaInfo) -> Evaluate | None:
    """`(network) -> scalars` on the config's evaluation split, or None if it wants none, or has no labels.

    The scalars are fractions in [0, 1]: `val/mIoU`, `val/IoU/car`, …
    """
    section = config.evaluation
    if section is None:
        return None
    dataset = evaluation_dataset(config, section)
    if fabric.is_global_zero:
        warn_of_labels(dataset)  # and of images that are left out
    if not dataset.labelled:
        return None
    place = {"rank": fabric.global_rank, "world_size": fabric.world_size}
    loader = evaluation_loader(EvaluationSamples(dataset), section, **place)

    def evaluate(network: nn.Module) -> dict[str, float]:
        def add(counts: Tensor) -> Tensor:
            return reduced(fabric, counts.to(fabric.device), "sum").cpu()

        metrics = scored(config, fabric, info, network, loader, all_reduce=add)
        totals = {f"{section.split}/{name}": float(getattr(metrics, name)) for name in ("mIoU", "mAcc", "aAcc")}
        by_class = zip(metrics.classes, metrics.iou, strict=True)
        return totals | {f"{section.split}/IoU/{name}": float(iou) for name, iou in by_class}

    return evaluate
