"""What the players of one game want: made of its numbers, for one teacher and one student."""

from dataclasses import dataclass

from torch import nn

from dfad_seg.common.errors import InputError
from dfad_seg.distill.game import DataFree, Game, WithData
from dfad_seg.generators import ImageGenerator, LayoutGenerator
from dfad_seg.objectives import ClassShares, FeatureMatching, GeneratorObjective, build_priors
from dfad_seg.objectives.discrepancy import Discrepancy, LogitAdjustment, weighted_discrepancy


@dataclass
class Losses:
    """The losses of a distillation; `losses_of` makes them, and any part may be another of the same kind."""

    student: Discrepancy
    """What the student minimises."""
    objective: GeneratorObjective | None = None
    """The generator's; None: it is not trained."""
    adjustment: LogitAdjustment | None = None
    """Of the student's logits in both; it learns from the teacher's on new images."""
    features: FeatureMatching | None = None
    """Added to the student's where the teacher is asked. The parameters of its `connectors` learn with the student."""

    @property
    def look_inside(self) -> bool:
        """Whether something here looks at layers of the teacher, which must then stay as they are."""
        return self.features is not None or bool(self.objective and self.objective.watching())


def losses_of(
    game: WithData, *, teacher: nn.Module, student: nn.Module, generator: ImageGenerator | None = None
) -> Losses:
    """The losses that a game's numbers ask for.

    Args:
        game: with the numbers of a `Game` the generator is trained.
        teacher: frozen; with logit_adjustment, and for some priors, it has an attribute `num_classes`.
        student: not wrapped.
        generator: of a data-free game.

    Raises:
        InputError: a network does not have what a loss needs, or the generator does not fit the game.
    """
    losses = Losses(weighted_discrepancy(game.student_loss, temperature=game.temperature))
    if game.logit_adjustment:
        losses.adjustment = LogitAdjustment(teacher.num_classes, game.logit_adjustment)  # type: ignore[arg-type]
    if isinstance(game, DataFree):
        if generator is not None:
            _check_fit(game, generator)
        if game.activation_boundary:
            losses.features = FeatureMatching(
                game.activation_boundary, teacher=teacher, student=student, image_size=game.image_size
            )
    if isinstance(game, Game):
        if game.priors.get("layout_consistency") and not isinstance(generator, LayoutGenerator):
            raise InputError("the prior layout_consistency needs a generator of layouts (generator.type: layout).")
        losses.objective = GeneratorObjective(
            weighted_discrepancy(game.adversarial_loss, temperature=game.temperature),
            adversarial_weight=game.adversarial_weight,
            priors=build_priors(game.priors, teacher),
            class_shares=ClassShares.of(teacher) if generator is not None and generator.follows_shares else None,
            adjustment=losses.adjustment,
        )
    return losses


def _check_fit(game: DataFree, generator: ImageGenerator) -> None:
    sizes = game.progressive_sizes or (game.image_size,)
    other = [size for size in sizes if generator.image_size not in (None, size)]
    if other:
        raise InputError(
            f"this generator makes images of {generator.image_size} only, and {other[0]} is asked for. Leave out "
            "progressive_sizes, or choose a generator of any size, such as generator.type: layout."
        )
    fewest = min(game.batch_of(size) for size in sizes)
    if fewest < generator.least_batch:
        raise InputError(
            f"this generator needs batches of {generator.least_batch} images, and the smallest has {fewest}: "
            "some of its parts would never learn. Raise batch_size or lower generator.sub_generators."
        )
