"""The data-free game as a model that MMEngine's runner trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.dist import get_rank, get_world_size
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dfad_seg.common.errors import InputError
from dfad_seg.distill import generator_step, student_step
from dfad_seg.distill.seeds import iteration_rng
from dfad_seg.export.mmseg_model import DFADSegmentor
from dfad_seg.generators import ImageGenerator, build_generator
from dfad_seg.objectives import (
    ClassShares,
    GeneratorObjective,
    Interpolation,
    LogitAdjustment,
    build_priors,
    weighted_discrepancy,
)
from dfad_seg.segmentors import Segmentor, build_segmentor, freeze, load_segmentor
from dfad_seg.segmentors.mmseg_networks import as_segmentor, plain_model


@MODELS.register_module()
class DFADLoss(nn.Module):
    """A weighted sum of discrepancies, `(student_logits, teacher_logits) -> scalar`; see `objectives.discrepancy`.

    Args:
        discrepancies: names and weights, such as `dict(mae=1.0, kl=0.5)`.
        temperature: of those that take one.
        loss_weight: of the sum.
    """

    def __init__(self, discrepancies: Mapping[str, float], temperature: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.total = weighted_discrepancy(dict(discrepancies), temperature=temperature)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return self.loss_weight * self.total(student_logits, teacher_logits)


@MODELS.register_module()
class DataFreeDistiller(BaseModel):
    """Data-free adversarial distillation (Fang et al. 2019) by MMEngine's runner: its schedules, hooks and logs.

    A training iteration is `student_steps` student steps and one generator step, by the same two functions as in
    `distill.distil_data_free`. Validation and tests are the student's. Checkpoints hold the student and the generator;
    the frozen teacher is no part of them.

    Args:
        teacher: the options of `build_segmentor` (`source` is `mmseg` by default), or `source="saved"` with the
            `checkpoint` that a run of this package wrote.
        student: the `model` entry of a config of MMSegmentation, or a `DFADSegmentor`. Auxiliary heads are left out.
        generator: `type` (DCGANGenerator, LayoutGenerator, or a registered one) and its options.
        student_loss: what the student minimises; default `DFADLoss` with the mean absolute difference.
        adversarial_loss: what the generator maximises; default `DFADLoss` with `log_mae`.
        adversarial_weight: of that loss.
        priors: further terms of the generator's loss with their weights, such as `dict(batch_norm_prior=1.0)`.
        logit_adjustment: α of `LogitAdjustment`; 0: none.
        batch_size: images per step and process.
        image_size: (H, W) of the generated images.
        student_steps, student_norm, accumulate: as in `GameSettings`.
        interpolation: options of `Interpolation`; default: none.
        seed: of the noise; with the number of the iteration and the rank it fixes every latent.

    Raises:
        InputError: anything wrong with the networks, or a teacher and a student with different classes.
    """

    def __init__(
        self,
        teacher: Mapping[str, Any],
        student: Mapping[str, Any],
        generator: Mapping[str, Any],
        student_loss: Mapping[str, Any] | None = None,
        adversarial_loss: Mapping[str, Any] | None = None,
        adversarial_weight: float = 1.0,
        priors: Mapping[str, float] | None = None,
        logit_adjustment: float = 0.0,
        batch_size: int = 64,
        image_size: Sequence[int] = (128, 128),
        student_steps: int = 5,
        student_norm: str = "update",
        accumulate: int = 1,
        interpolation: Mapping[str, Any] | None = None,
        seed: int = 0,
        init_cfg: Any = None,
    ) -> None:
        entry = plain_model(student, keep_training=True)
        theirs = MODELS.build(ConfigDict(entry))  # they read its parts as attributes
        super().__init__(data_preprocessor=theirs.data_preprocessor, init_cfg=init_cfg)
        theirs.init_weights()
        if isinstance(theirs, DFADSegmentor):
            self.student = theirs.segmentor
        else:
            self.student = as_segmentor(theirs)
            self.student.spec = {
                "source": "mmseg",
                "num_classes": self.student.num_classes,
                "model": plain_model(student),
            }
        # Neither is registered: the student is there already, and a frozen teacher belongs into no checkpoint.
        self._theirs = (theirs,)
        self._teacher = (_build_teacher(teacher, self.student.num_classes),)
        if self.teacher.classes is not None:
            self.student.classes, self.student.palette = self.teacher.classes, self.teacher.palette
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.generator = _build_generator(generator, self.teacher, self.image_size)
        # Sub-modules, so that what they have learnt is in their checkpoints.
        self.class_shares = ClassShares.of(self.teacher) if self.generator.follows_shares else None
        if self.class_shares is not None:
            self.generator.aim(self.class_shares.shares)
        self.adjustment = LogitAdjustment(self.teacher.num_classes, logit_adjustment) if logit_adjustment else None
        self.student_loss = MODELS.build(student_loss or {"type": "DFADLoss", "discrepancies": {"mae": 1.0}})
        self.adversarial_loss = MODELS.build(adversarial_loss or {"type": "DFADLoss", "discrepancies": {"log_mae": 1}})
        self.objective = GeneratorObjective(
            self.adversarial_loss,
            adversarial_weight=adversarial_weight,
            priors=build_priors(dict(priors or {}), self.teacher),
            class_shares=self.class_shares,
            adjustment=self.adjustment,
        )
        self.interpolation = Interpolation(**interpolation) if interpolation else None
        self.batch_size = batch_size
        self.student_steps = student_steps
        self.student_norm = student_norm
        self.accumulate = accumulate
        self.seed = seed

    @property
    def teacher(self) -> Segmentor:
        """The frozen teacher."""
        return self._teacher[0]

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """One iteration of the game.

        Args:
            data: the iteration's number, as `IterationNumbers` gives it: a list of one.
            optim_wrapper: an `OptimWrapperDict` with `student` and `generator`, as `PlayersConstructor` makes it.

        Returns:
            Scalars to log: `loss` (the student's), `agreement`, `class_entropy` of the teacher's answers (1 where all
            classes are as frequent, 0 where there is one), and the terms of the generator's loss.
        """
        player, opponent = _players(optim_wrapper)
        device = next(self.student.parameters()).device
        rng = iteration_rng(self.seed, get_rank(), int(data[0]), device)
        sums: dict[str, Tensor] = {}
        for _ in range(self.student_steps):
            latents = self.generator.sample(self.batch_size, self.image_size, rng)
            with torch.no_grad(), opponent.optim_context(self.generator):
                images = self.generator(latents)
            result = student_step(
                student=self.student,
                teacher=self.teacher,
                images=images,
                optimizer=player,
                loss_fn=self.student_loss,
                accumulate=self.accumulate,
                interpolation=self.interpolation,
                rng=rng,
                adjustment=self.adjustment,
                backward=_backward(player),
                autocast=partial(player.optim_context, self.student),
            )
            if self.adjustment is not None:
                self.adjustment.observe(result.logits)
            counts = result.logits.argmax(dim=1).flatten().bincount(minlength=result.logits.shape[1]).double()
            share = (counts / counts.sum()).clamp_min(1e-12)
            entropy = -(share * share.log()).sum() / torch.log(torch.tensor(float(len(share))))
            shown = {"loss": result.loss, "agreement": result.meters["agreement"], "class_entropy": entropy}
            sums = {name: sums.get(name, 0) + value / self.student_steps for name, value in shown.items()}
        latents = self.generator.sample(self.batch_size, self.image_size, rng)
        result = generator_step(
            generator=self.generator,
            student=self.student,
            teacher=self.teacher,
            latents=latents,
            optimizer=opponent,
            objective=self.objective,
            student_norm=self.student_norm,
            accumulate=self.accumulate,
            backward=_backward(opponent),
            autocast=partial(opponent.optim_context, self.generator),
        )
        labels = result.logits.argmax(dim=1)
        self.generator.observe(latents, labels)
        if self.class_shares is not None:
            self.generator.aim(self.class_shares.update(labels))
        shares = [] if self.adjustment is None else [self.adjustment.shares]
        _average([statistic for network in (self.student, self.generator) for statistic in _running(network)] + shares)
        terms = {"loss": result.loss, **result.meters}
        return sums | {f"generator_{name}": value for name, value in terms.items()}

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        """The student's answer, as their segmentors give it."""
        return self._theirs[0](inputs, data_samples, mode)

    def val_step(self, data: Any) -> list:
        return self._theirs[0].val_step(data)

    def test_step(self, data: Any) -> list:
        return self._theirs[0].test_step(data)

    def _apply(self, fn: Callable, recurse: bool = True) -> DataFreeDistiller:
        # Moves to devices and between number types take the teacher along.
        super()._apply(fn, recurse)
        self.teacher._apply(fn, recurse)
        return self


def _build_teacher(options: Mapping[str, Any], num_classes: int) -> Segmentor:
    given = {"source": "mmseg", **options}
    if given["source"] == "saved":
        teacher = load_segmentor(given["checkpoint"], trust=bool(given.get("trust", False)))
    else:
        if not given.get("checkpoint") and given["source"] in ("mmseg", "smp", "torchvision"):
            raise InputError("teacher: it has no checkpoint, so its weights would be random. Give teacher.checkpoint.")
        teacher = build_segmentor(**{"num_classes": num_classes, **given})
    if teacher.num_classes != num_classes:
        raise InputError(f"the teacher answers {teacher.num_classes} classes, and the student {num_classes}.")
    return freeze(teacher)


def _build_generator(options: Mapping[str, Any], teacher: Segmentor, image_size: tuple[int, int]) -> ImageGenerator:
    given = dict(options)
    kind = str(given.pop("type", "dcgan")).removesuffix("Generator").lower()
    return build_generator(kind, num_classes=teacher.num_classes, image_size=image_size, **given)


def _players(optim_wrapper: Any) -> tuple[OptimWrapper, OptimWrapper]:
    try:
        player, opponent = optim_wrapper["student"], optim_wrapper["generator"]
    except (KeyError, TypeError, AssertionError):
        raise InputError(
            "a DataFreeDistiller needs two optimisers: optim_wrapper = dict(constructor='PlayersConstructor',"
            " student=dict(optimizer=...), generator=dict(optimizer=...))."
        ) from None
    for wrapper in (player, opponent):
        if wrapper._accumulative_counts != 1:
            raise InputError("accumulative_counts of an optim_wrapper is not used here: set accumulate of the model.")
    return player, opponent


def _backward(wrapper: OptimWrapper) -> Callable[[Tensor], None]:
    def backward(loss: Tensor) -> None:
        wrapper.backward(loss)
        if get_world_size() > 1:
            groups: Any = wrapper.param_groups
            _average([p.grad for group in groups for p in group["params"] if p.grad is not None])

    return backward


def _running(network: nn.Module) -> list[Tensor]:
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    statistics = [statistic for layer in layers for statistic in (layer.running_mean, layer.running_var)]
    return [statistic for statistic in statistics if statistic is not None]


@torch.no_grad()
def _average(tensors: list[Tensor]) -> None:
    """Replace tensors by their means over all processes, in one message."""
    if get_world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    torch.distributed.all_reduce(flat)
    flat /= get_world_size()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))
