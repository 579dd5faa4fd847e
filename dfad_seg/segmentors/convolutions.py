"""Convolutions that compute the same by a shorter way, without a change of weights, keys or shapes."""

import itertools
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
    kernel turned by 180°, and a weight's is the sum over images and positions of y's gradient times the input that the
    weight's tap reads there.
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
                grad_weight = torch.empty_like(weight).copy_(_by_taps(gradient, x, weight, padding, dilation))
            if has_bias and ctx.needs_input_grad[2]:
                grad_bias = gradient.sum(dim=(0, 2, 3))
        return grad_x, grad_weight, grad_bias, None, None


def _by_taps(
    gradient: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], dilation: tuple[int, int]
) -> Tensor:
    """The gradient (C, 1, rows, columns) of a depthwise kernel, of y's gradient and x (N, C, H, W); sums in float32."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    gradient, x = (part.to(dtype).permute(0, 2, 3, 1) for part in (gradient, x))
    made = torch.zeros(*weight.shape[2:], len(weight), dtype=dtype)
    for row, column in itertools.product(*map(range, weight.shape[2:])):
        offsets = row * dilation[0] - padding[0], column * dilation[1] - padding[1]
        (tops, rows), (lefts, columns) = map(_overlap, offsets, x.shape[1:3])
        made[row, column] = (gradient[:, tops, lefts] * x[:, rows, columns]).sum(dim=(0, 1, 2))
    return made.permute(2, 0, 1)[:, None]


def _overlap(offset: int, size: int) -> tuple[slice, slice]:
    """Of one axis of a map: where a tap reads no padding, and what it reads there."""
    first, last = max(0, -offset), max(0, size - max(0, offset))
    return slice(first, last), slice(first + offset, max(first, last) + offset)
