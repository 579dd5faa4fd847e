"""The network of the layout generator: the class of each pixel, a style and noise in, an image out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SubGenerator(nn.Module):
    """(N, C, H, W) one-hot classes, (N, style_dim) styles and (N, N', H, W) noise → images (N, K, H, W) in [0, 1].

    A coarse-to-fine stack of convolutions. At every scale the features are normalised and then scaled and shifted
    per pixel by what its class is (class-adaptive normalisation, after SPADE, Park et al. 2019, and CLADE, Tan
    et al. 2021); scale and shift also depend on the image's style vector. Each convolution sees noise beside its input,
    and white noise is added after it with a strength that depends on the class. There is no layer of fixed size: one
    set of weights makes 128×128 crops and full frames.

    `width` channels at full resolution double with each of `scales` halvings, up to `8 * width`.
    """

    def __init__(
        self, *, num_classes: int, in_channels: int, noise_channels: int, style_dim: int, width: int, scales: int
    ) -> None:
        super().__init__()
        self.scales = scales
        channels = [width * min(2**level, 8) for level in range(scales, -1, -1)]
        self.stem = nn.Conv2d(num_classes + noise_channels, channels[0], kernel_size=3, padding=1)
        self.blocks = nn.ModuleList(
            _ModulatedBlock(c_in, c_out, num_classes, style_dim, noise_channels)
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
    def __init__(self, c_in: int, c_out: int, num_classes: int, style_dim: int, noise_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in + noise_channels, c_out, kernel_size=3, padding=1, bias=False)
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
