"""The numbers of training: one class per method, each field once, with its bounds and its meaning."""

from dataclasses import field
from typing import Annotated, Any, Literal

from typing_extensions import Self

from dfad_seg.common.values import (
    Chosen,
    Decay,
    Iterations,
    NonNegative,
    Positive,
    Rate,
    Size,
    Weight,
    by,
    names_of,
    options,
    section,
    validated,
)
from dfad_seg.distill.optimizers import OPTIMIZERS, SCHEDULES, AdamOptions, Constant, Schedule, SGDOptions
from dfad_seg.objectives import DISCREPANCIES, PRIORS, TEMPERED, Interpolation

ScheduleSection = Annotated[Chosen, section(SCHEDULES, "type")]
OptimizerSection = Annotated[Chosen, section(OPTIMIZERS, "type")]
Discrepancies = Annotated[dict[str, Weight], names_of(DISCREPANCIES, "discrepancy")]
Priors = Annotated[dict[str, Weight], names_of(PRIORS, "prior")]


@options
class Training:
    """What all methods share."""

    iterations: Iterations = 15_000
    """dfad, random_noise: each is `student_steps` student steps (and one generator step); else one step."""
    batch_size: Positive = 64
    """Images per step and process."""
    image_size: Size = (128, 128)
    """[height, width] of generated images, or of training crops."""
    student_optimizer: OptimizerSection = Chosen("sgd", SGDOptions(lr=0.1, weight_decay=5e-4))
    """Of the network that is trained."""
    schedule: ScheduleSection = Chosen("constant", Constant())
    """Of all learning rates."""
    clip_norm: Rate | None = None
    """Bound on gradient norms."""
    ema_decay: Decay | None = None
    """Keep a moving average of the trained network, with min(d, (1 + t) / (10 + t)) in iteration t, instead of its last
    weights."""
    fixed_norm: tuple[str, ...] = ()
    """Parts of the trained network, by their names, whose BatchNorm uses and keeps its running statistics."""
    seed: NonNegative = 0
    """Of all random numbers."""

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Checked values, as in a config. Raises InputError that names every mistake."""
        return validated(cls, values, cls.__name__)

    def __post_init__(self) -> None:
        """Whether the fields go together; raises ValueError."""


@options
class Supervised(Training):
    """Training on labels."""

    focal_gamma: Weight = 0.0
    """0 is cross-entropy, > 0 focal loss."""


@options
class WithData(Training):
    """Distillation on real images: the control."""

    student_loss: Discrepancies = field(default_factory=lambda: {"mae": 1.0})
    """Discrepancies that the student minimises, with weights."""
    temperature: Rate = 1.0
    """Divides both networks' logits in kl and jensen_shannon, for either player."""
    logit_adjustment: Weight = 0.0
    """α: the student's logits plus α · log(share of the class) imitate the teacher's, so that it does not overlook rare
    classes; 0.5 suits the mIoU."""
    logit_pooling: Positive = 1
    """Side of the squares of pixels over which both networks' logits are averaged before the student's loss, and in the
    memory: cheap where networks enlarge their logits at the end anyway."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(self.student_loss.values()):
            raise ValueError("student_loss needs at least one discrepancy with a weight above 0")
        if self.temperature != 1 and not self._discrepancies() & TEMPERED:
            raise ValueError(f"temperature has no effect without one of {', '.join(sorted(TEMPERED))}")

    def _discrepancies(self) -> set[str]:
        return {name for name, weight in self.student_loss.items() if weight}


@options
class Replay:
    """Generated images that are remembered, and the student's steps on them."""

    size: Iterations
    """Images to remember, per image size."""
    steps: Positive
    """Student steps per iteration on remembered images, beside those on new ones."""
    final_steps: NonNegative | None = None
    """`steps` grows to this as the schedule's factor falls to 0: later images are worth more."""
    logits: Literal["anew", "kept"] = "anew"
    """Whether the teacher predicts remembered images again, or its logits were stored with them."""

    def steps_at(self, iteration: int, schedule: Schedule, warmup: int) -> int:
        """The student's steps on remembered images in an iteration."""
        if self.final_steps is None:
            return self.steps
        # How far the learning rates have fallen: the small factors of the warm-up do not count.
        factor = min(1.0, schedule(max(iteration, warmup - 1)))
        return round(self.steps + (self.final_steps - self.steps) * (1 - factor))


@options
class DataFree(WithData):
    """Distillation on images that are made, whatever makes them: uniform noise is the control."""

    student_steps: Iterations = 5
    """k, student steps on new images per iteration."""
    progressive_sizes: tuple[Size, ...] = ()
    """Sizes of generated images, one after the other in equal parts of the run, with about as many pixels per batch;
    the last must be image_size."""
    replay: Replay | None = None
    """A memory of generated images."""
    interpolation: Interpolation | None = None
    """Virtual samples between generated images."""
    activation_boundary: Weight = 0.0
    """Weight of the activation regulariser in the student's loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.progressive_sizes and self.progressive_sizes[-1] != self.image_size:
            raise ValueError(
                f"progressive_sizes ends with {by(self.progressive_sizes[-1])}, and image_size is "
                f"{by(self.image_size)}: let the last be image_size"
            )
        for size in self.progressive_sizes or (self.image_size,):
            batch = self.batch_of(size)
            which = f"a batch of {by(size)} has {batch} images"
            if self.replay is not None and self.replay.size < batch:
                raise ValueError(f"replay.size: {which}, so that {self.replay.size} cannot fill one; raise it")
            if self.activation_boundary and self.interpolation and not self.interpolation.left_alone(batch):
                raise ValueError(
                    f"activation_boundary: {which}, and interpolation.share leaves none that teacher and student both "
                    "see; lower it"
                )
        if self.replay is not None and self.replay.final_steps is not None and self.schedule.name == "constant":
            raise ValueError("replay.final_steps needs a schedule that falls, and schedule.type is constant")

    def batch_of(self, size: tuple[int, int]) -> int:
        """How many images of a size (H, W) have about the pixels of a batch of `image_size`; at least 1."""
        same_pixels = self.batch_size * self.image_size[0] * self.image_size[1] / (size[0] * size[1])
        return max(1, round(same_pixels))

    def size_at(self, iteration: int) -> tuple[int, int]:
        """(H, W) of the images of an iteration."""
        sizes = self.progressive_sizes or (self.image_size,)
        return sizes[min(iteration * len(sizes) // self.iterations, len(sizes) - 1)]


@options
class Game(DataFree):
    """The data-free game of a student and a generator; the defaults are DFAD's for CamVid (Fang et al. 2019)."""

    adversarial_loss: Discrepancies = field(default_factory=lambda: {"log_mae": 1.0})
    """Discrepancies that the generator maximises, with weights."""
    adversarial_weight: Weight = 1.0
    """Weight of the discrepancy in the generator's loss; 0: no adversary."""
    priors: Priors = field(default_factory=dict)
    """What else the generator is asked for, with weights."""
    generator_optimizer: OptimizerSection = Chosen("adam", AdamOptions(lr=1e-3))
    """Of the generator."""
    student_norm: Literal["update", "batch", "running"] = "update"
    """The student's BatchNorm in the generator's step: batch statistics that update the running ones (what the
    paper's code does), batch statistics alone, or running statistics."""
    simultaneous: bool = False
    """The first student step of an iteration takes the generator step's images, and the logits they got, instead of
    fresh ones: one pass of generator and teacher less."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adversarial_weight and not any(self.adversarial_loss.values()):
            raise ValueError("adversarial_loss needs at least one discrepancy with a weight above 0")
        if not self.adversarial_weight and not any(self.priors.values()):
            raise ValueError("the generator has nothing to learn: raise adversarial_weight, or add priors")
        if self.simultaneous and self.activation_boundary:
            raise ValueError("activation_boundary cannot go with simultaneous, which takes the generator's logits")

    def _discrepancies(self) -> set[str]:
        attack = self.adversarial_loss if self.adversarial_weight else {}
        return super()._discrepancies() | {name for name, weight in attack.items() if weight}
