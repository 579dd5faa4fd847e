"""The papers' generator: a DCGAN decoder of fixed image size."""

import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.common.values import Positive, options
from dfad_seg.generators.base import ImageGenerator, normal


@options
class DCGANOptions:
    """The papers' generator, of images whose sides are multiples of 16."""

    latent_dim: Positive = 256
    """Length of the latent vector."""
    width: Positive = 64
    """Channels of the last block; the paper's are 64, and those of the others go with them."""


class DCGANGenerator(ImageGenerator):
    """Latent vectors (N, latent_dim) → images (N, K, H, W) in [0, 1]; K = 3 in the paper.

    As in DFAD (Fang et al. 2019): Linear to 512 × H/16 × W/16, BatchNorm, four times [transposed convolution
    4×4 stride 2, BatchNorm, LeakyReLU 0.2] down to 64 channels, a 3×3 convolution and tanh. The weights start
    from N(0, 0.02). The tanh's [-1, 1] is mapped to [0, 1], since a segmentor does its own normalisation.

    Raises:
        InputError: a side of the image size is not a multiple of 16.
    """

    def __init__(self, options: DCGANOptions, image_size: tuple[int, int], in_channels: int = 3) -> None:
        super().__init__()
        last = options.width
        channels = (8 * last, 4 * last, 2 * last, last, last)
        height, width = image_size
        if height % 16 or width % 16:
            raise InputError(
                f"the dcgan generator makes images whose sides are multiples of 16, and image_size is "
                f"{height}x{width}. Choose such a size, or generator.type: layout, which makes any size."
            )
        self.image_size = (height, width)
        self.latent_dim = options.latent_dim
        self.project = nn.Linear(options.latent_dim, channels[0] * (height // 16) * (width // 16))
        blocks: list[nn.Module] = [nn.BatchNorm2d(channels[0])]
        for c_in, c_out in zip(channels[:-1], channels[1:], strict=True):
            blocks += [
                nn.ConvTranspose2d(c_in, c_out, kernel_size=4, stride=2, padding=1),
                nn.BatchNorm2d(c_out),
                nn.LeakyReLU(0.2, inplace=True),  # BatchNorm's backward pass needs its input, not its result
            ]
        self.blocks = nn.Sequential(*blocks, nn.Conv2d(channels[-1], in_channels, kernel_size=3, padding=1))
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(module.weight, 0.0, 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
                nn.init.zeros_(module.bias)

    def sample(self, batch: int, size: tuple[int, int], rng: torch.Generator) -> Tensor:
        """Latents (batch, latent_dim) from N(0, 1) on the rng's device; `size` must be the generator's own."""
        if tuple(size) != self.image_size:
            raise InputError(f"this dcgan generator makes {self.image_size} images; {tuple(size)} was asked for.")
        return normal(rng, batch, self.latent_dim)

    def forward(self, latents: Tensor) -> Tensor:
        assert self.image_size is not None
        height, width = self.image_size
        x = self.project(latents).unflatten(1, (-1, height // 16, width // 16))
        return torch.tanh(self.blocks(x).float()) * 0.5 + 0.5
