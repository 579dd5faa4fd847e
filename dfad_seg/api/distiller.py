"""Data-free distillation as an object: networks in, student out, with what happened on the way."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.config import Config, parse_config
from dfad_seg.datasets import MetaInfo
from dfad_seg.datasets.metainfo import class_colours
from dfad_seg.distill import Hooks
from dfad_seg.distill.seeds import derived_seed
from dfad_seg.generators import ImageGenerator
from dfad_seg.recipes import assemble, train_in_process
from dfad_seg.runs import ProgressReport
from dfad_seg.runs.pictures import draw_generated
from dfad_seg.segmentors import Segmentor, freeze

Evaluate = Callable[[nn.Module], "float | Mapping[str, float]"]

_SHOWN = ("train/student_loss", "train/generator_loss", "train/student_agreement")


class DataFreeDistiller:
    """Distil a teacher into a student without data, as `method: dfad` of a config does (Fang et al. 2019).

    It has no argument for data: `evaluate` of `fit` gets networks, and gives numbers that nothing is chosen by.

    Args:
        teacher: a `Segmentor`; it is frozen.
        student: a `Segmentor` of as many classes, trained in place.
        generator: `"layout"`, `"dcgan"`, a mapping with `type` and the type's options, or an `ImageGenerator`.
        palette: one RGB triple (0-255) per class, for pictures.
        settings: the keys of a config that the method has, by their names: `batch_size`, `image_size`, `student_loss`,
            `adversarial_loss`, `student_optimizer`, `schedule`, `ema_decay`, `batch_norm_prior`, `seed`, `device`, …

    Attributes:
        history: one mapping per log line: "step" and scalars, losses and evaluations.
        student: trained so far.

    Raises:
        InputError: wrong networks or settings, all at once.

    Examples:
        >>> import torch
        >>> from dfad_seg import DataFreeDistiller
        >>> from dfad_seg.segmentors import Segmentor
        >>> teacher, student = (Segmentor(torch.nn.Conv2d(3, 4, 3, padding=1), num_classes=4) for _ in range(2))
        >>> game = DataFreeDistiller(
        ...     teacher, student, {"type": "layout", "width": 4}, image_size=(16, 16), batch_size=2, device="cpu"
        ... )
        >>> kept = game.fit(2, progress=False)
        >>> kept(torch.rand(1, 3, 20, 30)).shape
        torch.Size([1, 4, 20, 30])
        >>> game.history[-1]["step"]
        2
    """

    def __init__(
        self,
        teacher: Segmentor,
        student: Segmentor,
        generator: str | Mapping[str, Any] | ImageGenerator = "layout",
        *,
        palette: tuple[tuple[int, int, int], ...] | None = None,
        **settings: Any,
    ) -> None:
        for name, network in (("teacher", teacher), ("student", student)):
            if not isinstance(network, Segmentor):
                raise InputError(
                    f"the {name} must be a Segmentor, not {type(network).__name__}: it says the normalisation. Wrap a"
                    " plain network: Segmentor(network, num_classes=C, mean=..., std=...)."
                )
        if teacher.num_classes != student.num_classes:
            raise InputError(
                f"the teacher answers {teacher.num_classes} classes and the student {student.num_classes}: they need"
                " the same."
            )
        reserved = {"method", "teacher", "iterations", "num_classes", "dataset", "evaluation"} & settings.keys()
        if reserved:
            raise InputError(
                f"{', '.join(sorted(reserved))} cannot be set here; fit takes the steps and the evaluation."
            )
        self.teacher, self.student = freeze(teacher), student
        self.history: list[dict[str, float]] = []
        classes = teacher.classes or tuple(f"class_{i}" for i in range(teacher.num_classes))
        self._info = MetaInfo(classes, class_colours(palette, classes), named=teacher.classes is not None)
        self._own_generator = generator if isinstance(generator, ImageGenerator) else None
        section = {"type": generator} if isinstance(generator, str) else generator
        if isinstance(section, ImageGenerator):
            section = {"type": "layout"}  # the section is needed, and its generator is replaced
        self._values = {"method": "dfad", "generator": dict(section), "num_classes": teacher.num_classes, **settings}
        self._last_pictures: tuple[int, Tensor, Tensor, Tensor] | None = None
        self._config(1)

    def fit(
        self,
        steps: int,
        *,
        evaluate: Evaluate | None = None,
        evaluate_every: int = 0,
        log_every: int = 10,
        preview_every: int = 0,
        progress: bool = True,
    ) -> Segmentor:
        """Play the game from the student's present weights, and return the student to keep.

        Args:
            steps: iterations, each of `student_steps` student steps and one generator step.
            evaluate: `(network) → number` or mapping of numbers, for `history`.
            evaluate_every: iterations between evaluations; 0: at the end only.
            log_every: iterations between lines of `history`.
            preview_every: iterations between pictures; 0: at the end only.
            progress: show it on stderr.

        Returns:
            A segmentor in evaluation mode: the student, or its moving average where `ema_decay` is set.

        Raises:
            InputError: a wrong number of steps.
            Diverged: a loss is not finite.
        """
        config = self._config(steps)
        torch.manual_seed(derived_seed(config.seed, 0, 0, "initialisation"))
        experiment = assemble(config, self._info, teacher=self.teacher, student=self.student)
        if self._own_generator is not None:
            experiment.generator = self._own_generator
        self.history = []
        report = ProgressReport("distilling without data", steps, enabled=progress)

        def log(step: int, scalars: dict[str, float]) -> None:
            if self.history and self.history[-1]["step"] == step:
                self.history[-1] |= scalars
            else:
                self.history.append({"step": step, **scalars})
            report.note(", ".join(f"{name.partition('/')[2]} {value:.3f}" for name, value in self._latest().items()))

        def preview(step: int, images: Tensor, teacher: Tensor, student: Tensor) -> None:
            self._last_pictures = (step, images, teacher, student)

        hooks = Hooks(
            log=log,
            evaluate=None if evaluate is None else _as_scalars(evaluate),
            preview=preview,
            advance=report.advance_to,
            log_every=log_every,
            evaluate_every=evaluate_every,
            preview_every=preview_every,
        )
        with report:
            kept = train_in_process(experiment, hooks)
        assert isinstance(kept, Segmentor)
        return kept.cpu()

    def picture(self) -> Image.Image:
        """Generated images with the teacher's and the student's answers, as of the last preview.

        Raises:
            InputError: nothing has been trained.
        """
        if self._last_pictures is None:
            raise InputError("there is no picture yet: call fit first.")
        step, images, teacher, student = self._last_pictures
        title = f"generated images after {step} iterations"
        info = self._info
        return Image.fromarray(draw_generated(images, teacher, student, info.palette, info.classes, title))

    def _latest(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for line in self.history:
            found |= {k: v for k, v in line.items() if k in _SHOWN or k.startswith("evaluation/")}
        return found

    def _config(self, steps: int) -> Config:
        # The networks are given: their sections only have to be there.
        placeholder = {"source": "saved"}
        values = {**self._values, "teacher": placeholder, "student": placeholder, "iterations": steps}
        return parse_config(values, where="DataFreeDistiller")

    def _repr_html_(self) -> str:
        """For notebooks: the picture and the last numbers."""
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{value:.4f}</td></tr>" for name, value in self._latest().items()
        )
        parts = [f"<table>{rows}</table>" if rows else "<p>not trained yet</p>"]
        if self._last_pictures is not None:
            buffer = io.BytesIO()
            self.picture().save(buffer, format="PNG")
            data = base64.b64encode(buffer.getvalue()).decode()
            parts.append(f'<img alt="generated images and both answers" src="data:image/png;base64,{data}">')
        return "".join(parts)


def _as_scalars(evaluate: Evaluate) -> Callable[[nn.Module], dict[str, float]]:
    def scalars(network: nn.Module) -> dict[str, float]:
        found = evaluate(network)
        named = found if isinstance(found, Mapping) else {"score": found}
        return {f"evaluation/{name}": float(value) for name, value in named.items()}

    return scalars
