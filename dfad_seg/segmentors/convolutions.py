"""Convolutions that compute the same by a shorter way, without a change of weights, keys or shapes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class RewrittenConv2d(nn.Conv2d):
    """An `nn.Conv2d` that skips work whose result is known. Made of an existing one by `rewrite_convolutions`.

    - Dead taps: a tap of a dilated kernel that lies outside every input position's reach (its offset is at least the
      map's size) only ever multiplies padding. It is left out; with a dilation of at least the map's size, a 3×3
      convolution is its centre, a 1×1, and a depthwise one a factor per channel. The others' gradient is zero, as it
      would be.
    - Dilated depthwise convolutions on a CPU have a fast forward pass and a slow backward pass in oneDNN; the gradient
      is computed by operations that are fast, see `_DilatedDepthwise`.

    Which of the two applies is decided by each input's size, so that any size stays correct. The results are those of
    the original up to rounding.
    """

    skip_dead_taps: bool
    fast_backward: bool

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: Any = self.padding
        if self.skip_dead_taps:
            rows, columns = (
                live_taps(weight.shape[2 + axis], self.dilation[axis], input.shape[-2 + axis]) for axis in (0, 1)
            )
            if rows.stop - rows.start < weight.shape[2] or columns.stop - columns.start < weight.shape[3]:
                padding = (padding[0] - rows.start * self.dilation[0], padding[1] - columns.start * self.dilation[1])
                weight = _LiveTaps.apply(weight, rows, columns)
        if self.groups == len(weight) == input.shape[1] and weight.shape[2] == weight.shape[3] == 1:
            return _scaled_channels(input, weight, bias)
        # A single tap is not dilated.
        dilation = tuple(d if taps > 1 else 1 for d, taps in zip(self.dilation, weight.shape[2:], strict=True))
        if self.fast_backward and max(dilation) > 1 and input.device.type == "cpu" and torch.is_grad_enabled():
            return _DilatedDepthwise.apply(*_autocast(input, weight, bias), padding, dilation)
        return F.conv2d(input, weight, bias, self.stride, padding, dilation, self.groups)


def _autocast(input: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """A convolution's arguments as autocast would give them to it."""
    if not torch.is_autocast_enabled(input.device.type):
        return input, weight, bias
    dtype = torch.get_autocast_dtype(input.device.type)
    return input.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def _scaled_channels(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What a depthwise 1×1 convolution computes. On one thread torch convolves channel by channel, 40 times as slow."""
    input, weight, bias = _autocast(input, weight, bias)
    weight = weight.view(1, -1, 1, 1)
    return input * weight if bias is None else torch.addcmul(bias.view(1, -1, 1, 1), input, weight)


def rewrite_convolutions(module: nn.Module, *, dead_taps: bool = True, depthwise_backward: bool = True) -> int:
    """Turn the convolutions of a module that a rewrite can help into `RewrittenConv2d`, in place.

    Parameters, their names, shapes and layouts stay the very same objects, so that optimisers, checkpoints, copies and
    data-parallel wrappers notice nothing. Convolutions of other classes than `nn.Conv2d` itself are left alone.

    Returns:
        How many were turned.
    """
    count = 0
    for conv in module.modules():
        if type(conv) is not nn.Conv2d or not _is_same_convolution(conv):
            continue
        depthwise = conv.groups == conv.in_channels == conv.out_channels
        if not dead_taps and not (depthwise and depthwise_backward):
            continue
        conv.__class__ = RewrittenConv2d
        assert isinstance(conv, RewrittenConv2d)
        conv.skip_dead_taps = dead_taps
        conv.fast_backward = depthwise and depthwise_backward
        count += 1
    return count


def restore_convolutions(module: nn.Module) -> None:
    """Undo `rewrite_convolutions`, in place."""
    for conv in module.modules():
        if isinstance(conv, RewrittenConv2d):
            del conv.skip_dead_taps, conv.fast_backward
            conv.__class__ = nn.Conv2d  # type: ignore[assignment]


def live_taps(kernel: int, dilation: int, size: int) -> slice:
    """The taps of one axis of a centred, dilated kernel that reach any position of a map of `size`.

    The tap i of a kernel of odd length reads at the offset (i − ⌊kernel / 2⌋) · dilation from its output position,
    which is inside the map for some position if and only if the offset's magnitude is below the map's size.
    """
    half = kernel // 2
    reach = min(half, (size - 1) // dilation)
    return slice(half - reach, half + reach + 1)


def _is_same_convolution(conv: nn.Conv2d) -> bool:
    """Dilated, of stride 1 and odd kernel, with zeros around that keep the map's size."""
    kernel, dilation, stride = conv.kernel_size, conv.dilation, conv.stride
    return (
        max(dilation) > 1
        and max(kernel) > 1
        and max(stride) == 1
        and conv.padding_mode == "zeros"
        and all(k % 2 == 1 for k in kernel)
        and conv.padding == tuple(d * (k // 2) for d, k in zip(dilation, kernel, strict=True))
    )


class _LiveTaps(torch.autograd.Function):
    """Some taps of a kernel; the gradient of the others is zero, in the memory layout of the whole kernel.

    A plain slice would do, but for its gradient's layout, about which data-parallel training complains.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: slice, columns: slice) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.taps = rows, columns
        return weight[:, :, rows, columns].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        rows, columns = ctx.taps
        whole = torch.zeros_like(ctx.saved_tensors[0])
        whole[:, :, rows, columns] = gradient
        return whole, None, None


class _DilatedDepthwise(torch.autograd.Function):
    """A depthwise "same" convolution of stride 1 with a backward pass of operations that are fast on a CPU.

    With y_c = w_c ⋆ x_c (dilated correlation): the input's gradient is the same correlation of y's gradient with the
    kernel turned by 180°. The weights' gradient couples only positions of equal phase modulo the dilation, so both maps
    are split into their phases, which stack along the batch, and an ordinary, undilated convolution does the rest.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], dilation: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = padding, dilation, bias is not None
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(x, weight, bias, 1, padding, dilation, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        padding, dilation, has_bias = ctx.geometry
        grad_x = grad_weight = grad_bias = None
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", enabled=False):
            if ctx.needs_input_grad[0]:
                grad_x = F.conv2d(gradient, weight.flip(2, 3), None, 1, padding, dilation, len(weight))
            if ctx.needs_input_grad[1]:
                grad_weight = torch.ops.aten.convolution_backward(
                    _phases(gradient, dilation), _phases(x, dilation), weight, None, [1, 1],
                    [k // 2 for k in weight.shape[2:]], [1, 1], False, [0, 0], len(weight), [False, True, False],
                )[1]  # fmt: skip
                grad_weight = torch.empty_like(weight).copy_(grad_weight)  # in the layout of the weights
            if has_bias and ctx.needs_input_grad[2]:
                grad_bias = gradient.sum(dim=(0, 2, 3))
        return grad_x, grad_weight, grad_bias, None, None


def _phases(x: Tensor, dilation: tuple[int, int]) -> Tensor:
    """(N, C, H, W) → (d·d·N, C, ⌈H/d⌉, ⌈W/d⌉), channels last: every d-th row and column, padded with zeros."""
    d, e = dilation
    bottom, right = -x.shape[2] % d, -x.shape[3] % e
    if bottom or right:
        x = F.pad(x, (0, right, 0, bottom))
    n, c, height, width = x.shape
    split = x.permute(0, 2, 3, 1).reshape(n, height // d, d, width // e, e, c).permute(2, 4, 0, 1, 3, 5)
    return split.reshape(d * e * n, height // d, width // e, c).permute(0, 3, 1, 2)
