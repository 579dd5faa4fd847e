"""A conditional, fully convolutional generator: semantic layout and noise in, an image of any size out."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfad_seg.common.values import Few, Fraction, NonNegative, Positive, options
from dfad_seg.generators.base import ImageGenerator, normal, uniform
from dfad_seg.generators.layouts import CHANNELS, add_boxes, texture_noise, voronoi_cells


@options
class LayoutOptions:
    """Paints random maps of classes, at any size."""

    width: Positive = 24
    """Channels of a sub-generator at full resolution; each halving doubles them up to 8 times as many."""
    scales: NonNegative = 4
    """Number of halvings; sizes need not be divisible."""
    style_dim: Positive = 32
    """Length of the style vector, the look of the classes in an image."""
    sub_generators: Few = 1
    """Independent networks, each of which makes its share of a batch. One ends up with one look per class, whatever its
    style vector says, and a student learns that look; several find several."""
    class_frequencies: Literal["uniform", "moments"] = "uniform"
    """Shares of the classes in the layouts: alike, or those of the teacher's training data, as its last BatchNorm layer
    and its predictions on generated images tell them."""
    frequency_exponent: Fraction = 1.0
    """On these shares: 1 takes them as they are, 0 makes all alike, as mIoU counts them; a student that hardly sees a
    class learns to name its neighbours."""
    recalled: Fraction = 0.0
    """Share of the layouts whose regions are the teacher's predictions on earlier generated images."""
    boxes: NonNegative = 10
    """Most small upright boxes before the regions of a layout."""


class SubGenerator(nn.Module):
    """(N, C, H, W) one-hot classes, (N, style_dim) styles and (N, N', H, W) noise → images (N, K, H, W) in [0, 1].

    A coarse-to-fine stack of convolutions. At every scale the features are normalised and then scaled and shifted
    per pixel by what its class is (class-adaptive normalisation, after SPADE, Park et al. 2019, and CLADE, Tan
    et al. 2021); scale and shift also depend on the image's style vector. Each convolution sees noise beside its input,
    and white noise is added after it with a strength that depends on the class. There is no layer of fixed size: one
    set of weights makes 128×128 crops and full frames.
    """

    def __init__(self, options: LayoutOptions, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.scales = options.scales
        channels = [options.width * min(2**level, 8) for level in range(options.scales, -1, -1)]
        self.stem = nn.Conv2d(num_classes + CHANNELS, channels[0], kernel_size=3, padding=1)
        self.blocks = nn.ModuleList(
            _ModulatedBlock(c_in, c_out, num_classes, options.style_dim)
            for c_in, c_out in zip([channels[0], *channels[:-1]], channels, strict=True)
        )
        self.to_image = nn.Conv2d(channels[-1], in_channels, kernel_size=3, padding=1)

    def forward(self, one_hot: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        height, width = one_hot.shape[2:]
        x = None
        for level, block in zip(range(self.scales, -1, -1), self.blocks, strict=True):
            size = (-(-height // 2**level), -(-width // 2**level))
            classes = one_hot if level == 0 else F.adaptive_avg_pool2d(one_hot, size)
            # White noise stays white when subsampled, while pooling would fade it.
            texture = noise[:, :, :: 2**level, :: 2**level]
            if x is None:
                x = self.stem(torch.cat([classes, texture], dim=1))
            else:
                x = F.interpolate(x, size, mode="nearest")
            x = block(x, classes, style, texture)
        return torch.sigmoid(self.to_image(x).float())


class _ModulatedBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int, num_classes: int, style_dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in + CHANNELS, c_out, kernel_size=3, padding=1, bias=False)
        self.norm = nn.GroupNorm(1, c_out, affine=False)
        self.class_looks = nn.Parameter(torch.randn(num_classes, 2 * c_out) * 0.5)
        self.style_looks = nn.Linear(style_dim, num_classes * 2 * c_out)
        nn.init.normal_(self.style_looks.weight, 0.0, 0.5 / style_dim**0.5)
        nn.init.zeros_(self.style_looks.bias)
        self.texture = nn.Parameter(torch.randn(num_classes, c_out) * 0.2)

    def forward(self, x: Tensor, classes: Tensor, style: Tensor, texture: Tensor) -> Tensor:
        x = self.norm(self.conv(torch.cat([x, texture.to(x)], dim=1)))
        batch, num_classes, height, width = classes.shape
        looks = self.class_looks + self.style_looks(style).view(batch, num_classes, -1)
        looks = torch.cat([looks, self.texture.expand(batch, -1, -1).to(looks)], dim=2)
        # (N, 3C, K) @ (N, K, HW): each pixel takes its class's scale, shift and texture strength.
        per_pixel = looks.transpose(1, 2) @ classes.flatten(2).to(looks)
        scale, shift, strength = per_pixel.view(batch, -1, height, width).chunk(3, dim=1)
        return F.leaky_relu(x * (1 + scale) + shift + strength * texture[:, :1], 0.2)


class LayoutLatents(NamedTuple):
    """What a layout generator turns into a batch of images."""

    layout: Tensor
    """(N, H, W) class ids."""
    style: Tensor
    """(N, style_dim) from N(0, 1): the look of each class in this image."""
    noise: Tensor
    """(N, CHANNELS, H, W), see `texture_noise`."""


class LayoutGenerator(ImageGenerator):
    """Layouts with noise → images (N, K, H, W) in [0, 1], at the layout's own size.

    Of K sub-generators, the n-th image of a batch comes from the (n mod K)-th.
    """

    MAPS = 256
    """Predicted label maps to remember."""
    MAP_SIZE = (128, 128)
    """Their resolution; one to 255 classes takes a byte per pixel."""
    TILTS = 30
    """Steps towards remembered predictions of the classes aimed at, see `aim`."""

    def __init__(self, options: LayoutOptions, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.options = options
        self.num_classes, self.in_channels = num_classes, in_channels
        self.least_batch = options.sub_generators
        self.follows_shares = options.class_frequencies == "moments"
        self.sub_generators = nn.ModuleList(
            SubGenerator(options, num_classes, in_channels) for _ in range(options.sub_generators)
        )
        # Buffers: what was learnt travels with the weights.
        self.class_frequencies = nn.Buffer(torch.full((num_classes,), 1 / num_classes))
        shape = (self.MAPS, *self.MAP_SIZE) if options.recalled else (0, 1, 1)
        self.maps = nn.Buffer(torch.zeros(shape, dtype=torch.uint8 if num_classes < 256 else torch.int32))
        self.map_shares = nn.Buffer(torch.zeros(len(self.maps), num_classes))  # of the classes in each of them
        self.tilt = nn.Buffer(torch.zeros(num_classes))  # one is recalled by a chance of exp(tilt · its shares)
        self.observed = nn.Buffer(torch.zeros((), dtype=torch.int64))

    def sample(self, batch: int, size: tuple[int, int], rng: torch.Generator) -> LayoutLatents:
        """Random layouts, styles and noise for `batch` images of `size` (H, W), on the rng's device."""
        # No class dies out.
        frequencies = 0.97 * self.class_frequencies / self.class_frequencies.sum() + 0.03 / self.num_classes
        layouts = voronoi_cells(batch, size, frequencies, rng)
        if self.options.recalled:
            layouts = self._recall(layouts, rng)
        layouts = add_boxes(layouts, frequencies, rng, most=self.options.boxes)
        style = normal(rng, batch, self.options.style_dim)
        return LayoutLatents(layouts, style, texture_noise(batch, size, rng))

    def forward(self, latents: LayoutLatents) -> Tensor:
        one_hot = self._one_hot(latents.layout).to(latents.noise.dtype)
        count = len(self.sub_generators)
        images = latents.noise.new_empty((len(one_hot), self.in_channels, *one_hot.shape[2:]), dtype=torch.float32)
        for first in range(min(count, len(one_hot))):
            mine = slice(first, None, count)
            images[mine] = self.sub_generators[first](one_hot[mine], latents.style[mine], latents.noise[mine])
        return images

    @torch.no_grad()
    def observe(self, latents: LayoutLatents, labels: Tensor) -> None:
        """Remember the teacher's predictions (N, H, W) on generated images, if some are to be recalled.

        The prediction on an image is a layout that the teacher finds more likely than the one asked for, since its
        receptive field knows what lies next to what. Used as the layout of another image, and that one's prediction
        again, this is a walk towards arrangements like those of its training data: pavement along a road, buildings
        behind both. New random layouts and boxes keep it from settling on few.
        """
        if not self.options.recalled:
            return
        labels = labels[-self.MAPS :]  # of more, two would share a place
        places = (self.observed + torch.arange(len(labels), device=labels.device)) % self.MAPS
        small = F.interpolate(labels.unsqueeze(1).float(), self.MAP_SIZE, mode="nearest").squeeze(1)
        self.maps[places] = small.to(self.maps.dtype)
        self.map_shares[places] = self._one_hot(labels).float().mean(dim=(2, 3))
        self.observed.add_(len(labels))

    @torch.no_grad()
    def aim(self, class_shares: Tensor) -> None:
        """Take these (C,), with the exponent, as the frequencies of the random regions, and recall predictions
        accordingly: else their shares would stay what they happened to be in the first ones. Among all chances of the
        predictions under which the expected shares are those aimed at, the ones taken have the largest entropy."""
        powers = class_shares**self.options.frequency_exponent
        self.class_frequencies.copy_(powers / powers.sum())
        if self.options.recalled:
            self.tilt.zero_()
            for _ in range(self.TILTS):  # ascent of the dual; few enough to stay finite where no chances would do
                expected = self._chances() @ self.map_shares
                self.tilt.add_(2 * (self.class_frequencies - expected))

    def _recall(self, layouts: Tensor, rng: torch.Generator) -> Tensor:
        """Replace some of the layouts by remembered predictions, half of them mirrored."""
        draws = uniform(rng, 3, len(layouts), 1, 1)
        chances = self._chances().cumsum(dim=0)
        places = torch.searchsorted(chances, draws[0].flatten() * chances[-1], right=True)
        chosen = self.maps[places.clamp_max(self.MAPS - 1)]
        chosen = F.interpolate(chosen.unsqueeze(1).float(), layouts.shape[1:], mode="nearest").squeeze(1).long()
        chosen = torch.where(draws[1] < 0.5, chosen, chosen.flip(2))
        # The first ones are of an untrained generator: all alike.
        enough = self.observed >= self.MAPS // 8
        return torch.where((draws[2] < self.options.recalled) & enough, chosen, layouts)

    def _chances(self) -> Tensor:
        """(MAPS,) of each remembered prediction to be recalled, proportional to exp(tilt · its class shares)."""
        there = torch.arange(self.MAPS, device=self.tilt.device) < self.observed
        return (self.map_shares @ self.tilt).masked_fill(~there, -torch.inf).softmax(dim=0).nan_to_num()

    def _one_hot(self, labels: Tensor) -> Tensor:
        """(N, H, W) → bool (N, C, H, W). Not `F.one_hot`, which checks the labels and so makes a GPU's queue wait."""
        ids = torch.arange(self.num_classes, device=labels.device)
        return labels.unsqueeze(1) == ids[:, None, None]
