"""The networks, generator and losses of a config."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from dfad_seg.common.errors import InputError
from dfad_seg.config import Config
from dfad_seg.datasets import MetaInfo
from dfad_seg.distill.image_sizes import ImageSizes
from dfad_seg.distill.seeds import derived_seed
from dfad_seg.generators import ImageGenerator
from dfad_seg.objectives import Discrepancy, FeatureMatching, GeneratorObjective, LogitAdjustment, weighted_discrepancy
from dfad_seg.recipes.build import (
    build_adjustment,
    build_features,
    build_game,
    build_network,
    build_teacher,
    meta_info,
    to_layout,
)
from dfad_seg.recipes.optimizers import parameter_groups


@dataclass
class Experiment:
    """The networks of a config, built and loaded, with nothing trained yet."""

    config: Config
    info: MetaInfo
    teacher: nn.Module | None
    """Frozen; None for supervised training."""
    trained: nn.Module
    generator: ImageGenerator | None = None
    """For data-free training only."""
    objective: GeneratorObjective | None = None
    """None for the random-noise control, whose generator is not trained."""
    student_loss: Discrepancy | None = None
    """None for supervised training."""
    features: FeatureMatching | None = None
    """The student's activation regularisers, if the config wants any."""
    adjustment: LogitAdjustment | None = None
    """Of the student's logits, if the config wants one."""

    def networks(self, trained: nn.Module) -> dict[str, nn.Module]:
        """By role, the teacher first, with `trained` in the place of the trained one."""
        teacher = {} if self.teacher is None else {"teacher": self.teacher}
        return teacher | {self.config.trained_role: trained}


def build_experiment(config: Config) -> Experiment:
    """Build teacher, trained network and generator; the same seed gives the same weights.

    Raises:
        InputError: anything wrong with the networks' sections or their checkpoints.
    """
    info = meta_info(config)
    if config.class_weights is not None and len(config.class_weights) != info.num_classes:
        raise InputError(f"class_weights has {len(config.class_weights)} values for {info.num_classes} classes.")
    torch.manual_seed(derived_seed(config.seed, 0, 0, "initialisation"))
    section = config.teacher if config.trained_role == "teacher" else config.student
    assert section is not None
    trained = to_layout(config, build_network(section, config.trained_role, info))
    parameter_groups(config.student_optimizer, trained)  # for its errors, before anything is written
    if config.method == "supervised":
        return Experiment(config, info, None, trained)
    return assemble(config, info, teacher=to_layout(config, build_teacher(config, info)), student=trained)


def assemble(config: Config, info: MetaInfo, *, teacher: nn.Module, student: nn.Module) -> Experiment:
    """The distillation of a frozen teacher into a student, with the generator and the losses that the config asks for.

    The networks may be a classifier's, with logits (N, C).
    """
    student_loss = weighted_discrepancy(config.student_loss, temperature=config.distillation_temperature)
    adjustment = build_adjustment(config, info.num_classes)
    experiment = Experiment(config, info, teacher, student, student_loss=student_loss, adjustment=adjustment)
    if config.data_free:
        check_batches(config)
        generator, experiment.objective = build_game(config, teacher, info.num_classes, adjustment)
        if config.generator is not None:
            parameter_groups(config.generator_optimizer, generator)
        experiment.generator = to_layout(config, generator)
        experiment.features = build_features(config, teacher=teacher, student=student)
    return experiment


def check_batches(config: Config) -> None:
    """Raises InputError if the batches of `progressive_sizes` are too small or too large for other keys."""
    sizes = ImageSizes(config.image_size, config.batch_size, config.progressive_sizes, config.iterations)
    for size in config.progressive_sizes:
        batch = sizes.batch_of(size)
        least = config.accumulate * max(2 if config.accumulate > 1 else 1, config.painters)
        if batch < least:
            raise InputError(
                f"progressive_sizes: a batch of {size[0]}x{size[1]} has {batch} images, the pixels of "
                f"{config.batch_size} of image_size, and accumulate and generator.painters need {least}. "
                "Raise batch_size."
            )
        if config.unmixed(batch) == 0:
            raise InputError(
                f"progressive_sizes: a batch of {size[0]}x{size[1]} has {batch} images, and interpolation_share leaves "
                "none of them (or of a part, with accumulate) for activation_boundary and attention_transfer, which "
                "need images that both networks see. Lower interpolation_share, or set interpolation_labels: teacher."
            )
        if 0 < config.replay_size < batch:
            raise InputError(
                f"progressive_sizes: a batch of {size[0]}x{size[1]} has {batch} images, and replay_size "
                f"{config.replay_size} is less, so that none could be remembered. Raise replay_size."
            )
