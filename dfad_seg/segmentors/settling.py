"""A network whose code says nothing is tried when it is opened: what it takes, and whether it is what it seems."""

import itertools
import re

import torch
import torch.nn.functional as F
from torch import Tensor

from dfad_seg.common.errors import InputError
from dfad_seg.segmentors.base import NetworkFailed, Segmentor
from dfad_seg.segmentors.kinds import Contract, pad_to_stride

_SIDES = ((64, 96), (96, 64))
_STRIDES = (1, 2, 4, 8, 16, 32, 64, 128)
_TOLERANCE = 1e-3
_HALF = re.compile(r"\b(Half|BFloat16|float16|bfloat16|dtype|scalar type)\b")


def settle(segmentor: Segmentor, what: str, given: Contract) -> None:
    """Find out the sizes that an opaque network takes, and refuse what cannot serve; `given` goes before."""
    segmentor.eval()
    batch = _accepted(segmentor)[0]
    segmentor.fixed_batch = batch if isinstance(batch, int) else None
    values = itertools.chain(segmentor.network.parameters(), segmentor.network.buffers())
    if any(value.dtype in (torch.half, torch.bfloat16) for value in values):
        segmentor.network.float()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        size = find_sizes(segmentor, what, given)
        _refuse_training_mode(segmentor, what, size)


def smooth_noise(count: int, height: int, width: int, channels: int = 3) -> Tensor:
    """Images (count, channels, height, width) of clouds in [0, 1], always the same."""
    rng = torch.Generator().manual_seed(0)
    clouds = torch.zeros(())
    for cells in (2, 5, 11):
        coarse = torch.rand(count, channels, cells, cells, generator=rng)
        clouds = clouds + F.interpolate(coarse, size=(height, width), mode="bilinear") / 3
    return ((clouds - 0.5) * 2 + 0.5).clamp(0, 1)


def find_sizes(segmentor: Segmentor, what: str, given: Contract) -> tuple[int, int]:
    """A size at which the network answers, after its stride, its smallest or its fixed size were set.

    A network may have `accepts`, the shape of its input, whose numbers are fixed. Raises NetworkFailed where none is
    found, and InputError for an answer that is no logits.
    """
    failed: list[NetworkFailed | None] = []
    for scale in (1, 2, 4, 0.5, 0.25):
        sizes = [(int(height * scale), int(width * scale)) for height, width in _SIDES]
        failed = [_failure(segmentor, size) for size in sizes]
        if failed == [None, None] and len({_answer_size(segmentor, size) for size in sizes}) > 1:
            if scale > 1 and given.smallest is None:
                segmentor.smallest = min(sizes[0])
            if given.stride is None:
                odd = (sizes[0][0] + 1, sizes[0][1] + 1)
                for stride in (*_STRIDES, segmentor.stride):
                    segmentor.stride = stride
                    if _failure(segmentor, odd) is None:
                        break
            return sizes[0]
        if any(error is None for error in failed):
            break  # it answers, and always at one size: a size is burnt in
    height, width = _accepted(segmentor)[2:]
    if isinstance(height, int) and isinstance(width, int) and _failure(segmentor, (height, width)) is None:
        segmentor.fixed_size = (height, width)
        return height, width
    reason = next(filter(None, failed), None) or "its answer has one size, whatever the image"
    if "training mode" in str(reason):
        raise _made_in_training_mode(what, ["BatchNorm asks for several values per channel"])
    if _HALF.search(str(reason)):
        raise InputError(
            f"{what} computes in half precision and cannot take float32 images ({reason}). Make it anew in float32:"
            " model.float() before it is traced, scripted or exported."
        )
    raise NetworkFailed(
        f"{what} does not answer images of several sizes: {reason}. Where a size is burnt in, make it anew so that it"
        " takes any (no Python numbers taken from a shape; dynamic shapes)."
    )


def _accepted(segmentor: Segmentor) -> tuple[object, ...]:
    accepted: tuple[object, ...] = getattr(segmentor.network, "accepts", (None,) * 4)
    return accepted


def _failure(segmentor: Segmentor, size: tuple[int, int], batch: int = 1) -> NetworkFailed | None:
    """The error of a network on images of a size; what it returns must be logits, or an InputError is raised."""
    try:
        segmentor(torch.full((batch, segmentor.in_channels, *size), 0.5))
    except NetworkFailed as error:
        return error
    return None


def _answer_size(segmentor: Segmentor, size: tuple[int, int]) -> tuple[int, ...]:
    """(h, w) of the network's own answer, before it is resized."""
    batch = segmentor.fixed_batch or 1
    images = segmentor.normalise(torch.full((batch, segmentor.in_channels, *size), 0.5))
    images = pad_to_stride(images, segmentor.stride, segmentor.smallest)
    return tuple(segmentor.take_logits(segmentor.network(images), batch).shape[-2:])


def _refuse_training_mode(segmentor: Segmentor, what: str, size: tuple[int, int]) -> None:
    images = smooth_noise(2, *size, segmentor.in_channels)
    if segmentor.fixed_batch is None and _failure(segmentor, size, batch=2) is not None:
        segmentor.fixed_batch = 1
    before = [value.clone() for value in segmentor.network.buffers()]
    first, again = segmentor(images), segmentor(images)
    signs = []
    if any(not torch.equal(old, new) for old, new in zip(before, segmentor.network.buffers(), strict=True)):
        signs.append("an evaluation changes its running statistics: BatchNorm is live")
    if not _close(first, again):
        signs.append("the same images twice give other logits: dropout is live")
    elif not signs and not _close(segmentor(images[:1]), first[:1]):
        signs.append("an image's logits depend on the others of its batch: BatchNorm is live")
    if signs:
        raise _made_in_training_mode(what, signs)


def _made_in_training_mode(what: str, signs: list[str]) -> InputError:
    return InputError(
        f"{what} was made in training mode ({'; '.join(signs)}), so that its logits are not those that the network was"
        " trained to give. Call model.eval() before torch.jit.trace, torch.jit.script or torch.export.export."
    )


def _close(a: Tensor, b: Tensor) -> bool:
    scale = float(a.abs().max()) + 1e-12
    return bool(((a - b).abs() <= _TOLERANCE * scale).all())
