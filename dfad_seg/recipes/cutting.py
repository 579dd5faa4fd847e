"""A student is cut out of its teacher: the generator learns first, and its images decide what goes."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.common.progress import ProgressReport
from dfad_seg.common.values import Chosen
from dfad_seg.config import Config, GameConfig
from dfad_seg.distill import Losses
from dfad_seg.distill.losses import LogitAdjustment
from dfad_seg.distill.rehearsal import generated, rehearse
from dfad_seg.generators import ImageGenerator
from dfad_seg.recipes.device import say
from dfad_seg.runs import START_FILE, checkpoints
from dfad_seg.segmentors import CutOptions, Segmentor, cut, optimize_for_distillation

BATCH = 16


def cut_student(
    config: Config, teacher: Segmentor, generator: ImageGenerator | None, losses: Losses, device: torch.device | str
) -> Segmentor:
    """The student that a config wants cut; the generator is trained on the way, and all say what they do.

    All three networks are on the device afterwards.

    Raises:
        InputError: no generator to make images, a teacher that cannot be cut, a budget that cannot be met.
    """
    assert config.student is not None
    options = config.student.options
    assert isinstance(options, CutOptions)
    images = None
    if options.needs_images:
        if not isinstance(config, GameConfig) or generator is None or losses.objective is None:
            raise InputError(
                "student: a cut by agreement needs the images of a generator: use method dfad, or importance: magnitude"
                " with compensate: false."
            )
        fast = optimize_for_distillation(
            teacher.to(device), config.image_size, trainable=False, fold_batch_norm=not losses.look_inside
        )
        with ProgressReport("the generator learns before the cut", options.rehearsal) as progress:

            def advance(iteration: int, loss: float) -> None:
                progress.note(f"loss {loss:.2f}")
                progress.advance_to(iteration)

            rehearse(fast, generator.to(device), losses.objective, config, options.rehearsal, advance)
        sizes = {"batch_size": config.batch_size, "image_size": config.image_size}
        images = torch.cat([*generated(generator, options.images, **sizes, seed=config.seed)])  # type: ignore
    made = cut(teacher.to(device), options, config.image_size, images)
    say(str(made))
    if images is not None and losses.adjustment is not None:
        adjust(made.student, losses.adjustment, teacher, images)
    return made.student


@torch.no_grad()
def adjust(student: Segmentor, adjustment: LogitAdjustment, teacher: Segmentor, images: Tensor) -> None:
    """Shift a student's logits, in place, to where its loss with the adjustment would move them.

    The adjustment learns the shares of classes from the teacher's predictions of images (N, K, H, W). Nothing happens
    where no single layer with a bias makes the classes: then the game does it.
    """
    adjustment.to(images.device)
    for part in images.split(BATCH):
        adjustment.observe(teacher(part))
    classes = [
        layer
        for layer in student.network.modules()
        if isinstance(layer, nn.Conv2d) and layer.out_channels == student.out_channels and layer.bias is not None
    ]
    if len(classes) == 1:
        shift = adjustment(torch.zeros(1, student.num_classes, 1, 1, device=images.device)).flatten()
        # A mask's one logit is that of the object less that of the background.
        classes[0].bias -= shift if student.out_channels > 1 else shift[1:] - shift[:1]


def without_rehearsal(config: Config) -> Config:
    """The config with a student as large, cut in a second by its weights alone: for what only asks what things cost."""
    if config.student is None or not config.cuts:
        return config
    options = dataclasses.replace(config.student.options, importance="magnitude", compensate=False)
    return dataclasses.replace(config, student=Chosen("cut", options))


def start_of(work_dir: Path, resume: str | Path | None) -> Path | None:
    """The file of the student as an earlier part of a run cut it; None if the run begins, or begins again."""
    file = work_dir / START_FILE
    goes_on = resume is not None and (str(resume) != "latest" or checkpoints(work_dir))
    return file if goes_on and file.exists() else None
