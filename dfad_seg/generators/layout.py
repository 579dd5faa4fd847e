"""A conditional, fully convolutional generator: semantic layout and noise in, an image of any size out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.generators.base import ImageGenerator, at_least
from dfad_seg.generators.draws import normal, uniform
from dfad_seg.generators.layouts import add_boxes, voronoi_cells
from dfad_seg.generators.painter import Painter
from dfad_seg.generators.textures import CHANNELS, texture_noise


class LayoutLatents(NamedTuple):
    """What a layout generator turns into a batch of images."""

    layout: Tensor
    """(N, H, W) class ids."""
    style: Tensor
    """(N, style_dim) from N(0, 1): the look of each class in this image."""
    noise: Tensor
    """(N, K, H, W), see `textures.texture_noise`."""


class LayoutGenerator(ImageGenerator):
    """Layouts with noise → images (N, 3, H, W) in [0, 1], at the layout's own size.

    The images come from `painters`: independent networks of one architecture, of which each makes its share of a batch
    (the n-th image comes from the (n mod K)-th). One network ends up with one look per class, whatever its style vector
    says, and a student learns that look; several find several.

    Args:
        num_classes: number of layout classes, the teacher's.
        style_dim: length of the style vector, the look of the classes in an image.
        width: channels of a painter at full resolution; each halving doubles them up to `8 * width`.
        scales: number of halvings; sizes need not be divisible.
        painters: number of them. A batch (with `accumulate`: each part of it) should have as many images at least.
        class_frequencies: share of each class in the layouts' regions, C positive numbers, or `"uniform"`; changed by
            `aim`. A config may also say `"statistics"` (read off the teacher's weights) or `"moments"` (from there on
            estimated by its last BatchNorm).
        frequency_exponent: in [0, 1], on these frequencies, given or aimed at: 1 takes them as they are, 0 makes all
            alike. mIoU counts classes alike, and a student that hardly sees a class learns to answer its neighbours.
        recalled: share in [0, 1) of the layouts whose regions are the teacher's answers to earlier generated images
            instead of random ones, see `observe`.
        boxes: most small upright boxes before the regions of a layout.

    Raises:
        InputError: fewer than 2 classes, or an option out of range.
    """

    ANSWERS = 256
    """Answers to remember."""
    TILTS = 30
    """Steps towards remembered answers of the classes aimed at, see `aim`."""
    ANSWER_SIZE = (128, 128)
    """Their resolution; one to 255 classes takes a byte per pixel."""

    def __init__(
        self,
        *,
        num_classes: int,
        style_dim: int = 32,
        width: int = 24,
        scales: int = 4,
        painters: int = 1,
        class_frequencies: str | Sequence[float] = "uniform",
        frequency_exponent: float = 1.0,
        recalled: float = 0.0,
        boxes: int = 10,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise InputError(f"a layout generator needs at least 2 classes, got {num_classes}.")
        at_least("style_dim", style_dim, 1)
        at_least("width", width, 1)
        at_least("scales", scales, 0)
        at_least("painters", painters, 1)
        at_least("boxes", boxes, 0)
        if not isinstance(frequency_exponent, (int, float)) or not 0 <= frequency_exponent <= 1:
            raise InputError(f"generator.frequency_exponent is {frequency_exponent!r}; it must be a number in [0, 1].")
        if not isinstance(recalled, (int, float)) or not 0 <= recalled < 1:
            raise InputError(f"generator.recalled is {recalled!r}; it must be a number in [0, 1).")
        self.frequency_exponent = frequency_exponent
        self.recalled = recalled
        self.boxes = boxes
        self.num_classes = num_classes
        self.style_dim = style_dim
        self.painters = nn.ModuleList(
            Painter(
                num_classes=num_classes,
                noise_channels=CHANNELS,
                style_dim=style_dim,
                width=width,
                scales=scales,
            )
            for _ in range(painters)
        )
        # Buffers: what was learnt travels with the weights.
        self.class_frequencies: Tensor
        self.register_buffer("class_frequencies", self._evened(_frequencies(class_frequencies, num_classes)))
        self.answers: Tensor
        shape = (self.ANSWERS, *self.ANSWER_SIZE) if recalled else (0, 1, 1)
        self.register_buffer("answers", torch.zeros(shape, dtype=torch.uint8 if num_classes < 256 else torch.int32))
        self.answer_shares: Tensor  # (ANSWERS, C) of the classes in each answer
        self.register_buffer("answer_shares", torch.zeros(len(self.answers), num_classes))
        self.tilt: Tensor  # the chance of an answer to be recalled is exp(tilt · its shares), see `aim`
        self.register_buffer("tilt", torch.zeros(num_classes))
        self.answered: Tensor
        self.register_buffer("answered", torch.zeros((), dtype=torch.int64))

    def sample(self, batch: int, size: tuple[int, int], rng: torch.Generator) -> LayoutLatents:
        """Random layouts, styles and noise for `batch` images of `size` (H, W), on the rng's device."""
        # No class dies out.
        frequencies = 0.97 * self.class_frequencies / self.class_frequencies.sum() + 0.03 / self.num_classes
        layouts = voronoi_cells(batch, size, frequencies, rng)
        if self.recalled:
            layouts = self._recall(layouts, rng)
        return self.sample_looks(add_boxes(layouts, frequencies, rng, most=self.boxes), rng)

    def _recall(self, layouts: Tensor, rng: torch.Generator) -> Tensor:
        """Replace some of the layouts by remembered answers, half of them mirrored."""
        draws = uniform(rng, 3, len(layouts), 1, 1)
        chances = self._chances_of_answers().cumsum(dim=0)
        places = torch.searchsorted(chances, draws[0].flatten() * chances[-1], right=True)
        chosen = self.answers[places.clamp_max(self.ANSWERS - 1)]
        chosen = F.interpolate(chosen.unsqueeze(1).float(), layouts.shape[1:], mode="nearest").squeeze(1).long()
        chosen = torch.where(draws[1] < 0.5, chosen, chosen.flip(2))
        # The first answers are those of an untrained generator: all alike.
        enough = self.answered >= self.ANSWERS // 8
        return torch.where((draws[2] < self.recalled) & enough, chosen, layouts)

    def _chances_of_answers(self) -> Tensor:
        """(ANSWERS,) the chance of each remembered answer, proportional to exp(tilt · its class shares)."""
        there = torch.arange(self.ANSWERS, device=self.tilt.device) < self.answered
        return (self.answer_shares @ self.tilt).masked_fill(~there, -torch.inf).softmax(dim=0).nan_to_num()

    @torch.no_grad()
    def aim(self, class_shares: Tensor) -> None:
        """Take these (C,), with the exponent, as the frequencies of the random regions, and recall answers accordingly:
        else the shares of recalled answers would stay what they happened to be in the first ones. Among all chances of
        the answers under which the expected shares are those aimed at, the ones taken have the largest entropy."""
        self.class_frequencies.copy_(self._evened(class_shares))
        if self.recalled:
            self.tilt.zero_()
            for _ in range(self.TILTS):  # ascent of the dual; few enough to stay finite where no chances would do
                expected = self._chances_of_answers() @ self.answer_shares
                self.tilt.add_(2 * (self.class_frequencies - expected))

    def _evened(self, shares: Tensor) -> Tensor:
        if self.frequency_exponent == 1:
            return shares
        powers: Tensor = shares**self.frequency_exponent
        return powers / powers.sum()

    @torch.no_grad()
    def observe(self, latents: LayoutLatents, labels: Tensor) -> None:
        """Remember the teacher's predictions (N, H, W) on generated images, if some are to be recalled.

        The prediction on an image is a layout that the teacher finds more likely than the one asked for, since its
        receptive field knows what lies next to what. Used as the layout of another image, and that one's prediction
        again, this is a walk towards arrangements like those of its training data: pavement along a road, buildings
        behind both. New random layouts and boxes keep it from settling on few.
        """
        if not self.recalled:
            return
        answers = labels[-self.ANSWERS :]  # of more, two would share a place
        places = (self.answered + torch.arange(len(answers), device=labels.device)) % self.ANSWERS
        small = F.interpolate(answers.unsqueeze(1).float(), self.ANSWER_SIZE, mode="nearest").squeeze(1)
        self.answers[places] = small.to(self.answers.dtype)
        self.answer_shares[places] = self._one_hot(answers).float().mean(dim=(2, 3))
        self.answered += len(answers)

    def _one_hot(self, labels: Tensor) -> Tensor:
        """(N, H, W) → bool (N, C, H, W). Not `F.one_hot`, which checks the labels and so makes a GPU's queue wait."""
        ids = torch.arange(self.num_classes, device=labels.device)
        return labels.unsqueeze(1) == ids[:, None, None]

    def sample_looks(self, layout: Tensor, rng: torch.Generator) -> LayoutLatents:
        """Styles and noise for given layouts (N, H, W)."""
        batch, height, width = layout.shape
        return LayoutLatents(layout, normal(rng, batch, self.style_dim), texture_noise(batch, (height, width), rng))

    def forward(self, latents: LayoutLatents) -> Tensor:
        one_hot = self._one_hot(latents.layout).to(latents.noise.dtype)
        count = len(self.painters)
        if count == 1:
            images: Tensor = self.painters[0](one_hot, latents.style, latents.noise)
            return images
        images = latents.noise.new_empty((len(one_hot), 3, *one_hot.shape[2:]), dtype=torch.float32)
        for first in range(min(count, len(one_hot))):
            mine = slice(first, None, count)
            images[mine] = self.painters[first](one_hot[mine], latents.style[mine], latents.noise[mine])
        return images


def _frequencies(value: str | Sequence[float], num_classes: int) -> Tensor:
    if value == "uniform":
        return torch.full((num_classes,), 1 / num_classes)
    listed = isinstance(value, (list, tuple)) and len(value) == num_classes
    if not listed or not all(isinstance(v, (int, float)) and 0 < v < float("inf") for v in value):
        raise InputError(
            f"generator.class_frequencies is {value!r}; it must be uniform, statistics (read off the "
            f"teacher's weights), moments (estimated on the way), or {num_classes} positive numbers, one per class."
        )
    frequencies = torch.tensor([float(v) for v in value])
    return frequencies / frequencies.sum()
