"""From images to label maps: whole images or sliding windows, several scales and flips, from top to bottom.

With windows no more than a row of them is held as floats, whatever the size of the image, the scales and the flips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dfad_seg.common.errors import InputError
from dfad_seg.common.labels import labels_of
from dfad_seg.evaluation.options import Inference

Network = Callable[[Tensor], Tensor]
OnScores = Callable[[slice, Tensor, Tensor], None]
"""(rows, their labels (N, rows, W), their float32 probabilities (N, C, rows, W))."""

_STRIP = 2**19  # pixels whose probabilities are held at once
_RESIZED_WHOLE = 2**24  # windows over larger images are resized row by row, which rounds the last bit another way


def predict(
    network: Network,
    images: Tensor,
    size: tuple[int, int],
    mode: Inference,
    *,
    names: Sequence[str] | None = None,
    on_scores: OnScores | None = None,
) -> Tensor:
    """Label maps of images of one size.

    The logits are resized bilinearly to `size` before the argmax; with several scales or flips, so is each variant,
    and the softmax is averaged.

    Args:
        network: images (N, 3, H, W) in [0, 1] → logits (N, C, h, w).
        images: RGB on the network's device, float (N, 3, H, W) in [0, 1], or uint8 (N, H, W, 3) as decoded.
        size: height and width of the wanted label maps.
        mode: how the network is applied.
        names: of the images, for messages.
        on_scores: called for each strip of rows, from top to bottom, with the probabilities.

    Returns:
        Labels (N, *size), uint8 for up to 256 classes and int64 for more.

    Raises:
        InputError: logits that are not finite.
    """
    images = _planes(images)
    augmented = mode.flip or len(mode.scales) > 1 or mode.scales[0] != 1
    rows = max(1, _STRIP // size[1]) if augmented or on_scores or mode.crop_size else size[0]
    with mode.autocast(images.device):
        variants = [
            _regrouped(_variant(network, images, size, mode, scale, flipped, rows), rows)
            for scale in mode.scales
            for flipped in ((False, True) if mode.flip else (False,))
        ]
        labels = torch.empty(0)
        top = 0
        for strips in zip(*variants, strict=True):
            scores = strips[0]
            if augmented:
                scores = _averaged(strips)
            found = labels_of(scores, names)
            strip = slice(top, top + found.shape[1])
            if top == 0:
                labels = found if found.shape[1] == size[0] else found.new_empty(len(found), *size)
            labels[:, strip] = found
            if on_scores is not None:
                on_scores(strip, found, scores if augmented else scores.float().softmax(dim=1))
            top = strip.stop
    return labels


def _averaged(strips: Sequence[Tensor]) -> Tensor:
    total = strips[0].float().softmax(dim=1)
    for strip in strips[1:]:
        total += strip.float().softmax(dim=1)
    return total / len(strips)


def _planes(images: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) becomes (N, 3, H, W), still bytes: floats are made of what is worked on."""
    if images.dtype != torch.uint8:
        return images
    if images.shape[-1] != 3:
        raise InputError(f"8-bit images must be (N, H, W, 3), got {tuple(images.shape)}.")
    return images.permute(0, 3, 1, 2)


def _floats(images: Tensor) -> Tensor:
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def _variant(
    network: Network,
    images: Tensor,
    size: tuple[int, int],
    mode: Inference,
    scale: float,
    flipped: bool,
    rows: int,
) -> Iterator[Tensor]:
    """The logits of one scale, mirrored or not, at the wanted size, in strips from top to bottom."""
    height, width = images.shape[-2:]
    # Rounded as MMCV rounds, half up.
    scaled = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
    direct = scaled == (height, width) == size
    if mode.crop_size is None or not (direct or max(scaled[0] * scaled[1], size[0] * size[1]) > _RESIZED_WHOLE):
        whole = resized(_floats(images), scaled)
        whole = whole.flip(-1) if flipped else whole
        if mode.crop_size is None:
            logits = network(whole)
        else:
            windows = slide(network, lambda top, bottom: whole[..., top:bottom, :], scaled, mode)
            logits = torch.cat(list(windows), dim=2)
        yield resized(logits.flip(-1) if flipped else logits, size)
        return

    def read(top: int, bottom: int) -> Tensor:
        if scaled == (height, width):
            part = _floats(images[..., top:bottom, :])
        else:
            places = _Rows(height, scaled[0], top, bottom)
            part = places.resized(_floats(images[..., places.first : places.last + 1, :]), places.first, scaled[1])
        return part.flip(-1) if flipped else part

    parts = slide(network, read, scaled, mode)
    parts = (part.flip(-1) for part in parts) if flipped else parts
    yield from parts if scaled == size else _resized_strips(parts, scaled[0], size, rows)


def slide(
    network: Network, read: Callable[[int, int], Tensor], size: tuple[int, int], mode: Inference
) -> Iterator[Tensor]:
    """Logits of sliding windows, averaged where they overlap, as strips (N, C, rows, W) from top to bottom, float32.

    Windows start at multiples of the stride; the last of a row or column is moved back to end at the border, and an
    image smaller than the window is one window: MMSegmentation's `slide_inference`, without its whole arrays.

    Args:
        network: a window (N, 3, h, w) → its logits.
        read: (top, bottom) → the image's rows, float (N, 3, bottom - top, W).
        size: of the image.
        mode: window and stride.
    """
    assert mode.crop_size is not None
    height, width = size
    tall, wide = min(mode.crop_size[0], height), min(mode.crop_size[1], width)
    tops, lefts = _starts(height, tall, mode.stride[0]), _starts(width, wide, mode.stride[1])
    total, count = torch.empty(0), torch.zeros(1, 1, tall, width)
    for top, following in zip(tops, [*tops[1:], height], strict=True):
        row = read(top, top + tall)
        for left in lefts:
            logits = resized(network(row[..., left : left + wide]), (tall, wide))
            if total.ndim == 1:
                total = logits.new_zeros(*logits.shape[:2], tall, width, dtype=torch.float32)
                count = count.to(logits.device)
            total[..., left : left + wide] += logits
            count[..., left : left + wide] += 1
        done = following - top
        for strip in range(0, done, max(1, _STRIP // width)):
            part = slice(strip, min(done, strip + max(1, _STRIP // width)))
            yield total[:, :, part] / count[:, :, part]
        for sums in (total, count):
            sums[:, :, : tall - done] = sums[:, :, done:].clone()
            sums[:, :, tall - done :] = 0


def _starts(length: int, window: int, stride: int) -> list[int]:
    windows = max(length - window + stride - 1, 0) // stride + 1
    return [min(place * stride, length - window) for place in range(windows)]


def _regrouped(parts: Iterator[Tensor], rows: int) -> Iterator[Tensor]:
    """The same rows in strips of `rows`; the last may have fewer."""
    held: Tensor | None = None
    for part in parts:
        held = part if held is None or not held.shape[2] else torch.cat([held, part], dim=2)
        while held.shape[2] >= rows:
            yield held[:, :, :rows]
            held = held[:, :, rows:]
    if held is not None and held.shape[2]:
        yield held


def resized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """`(N, C, h, w)` at another size, bilinear with half-pixel centres; itself where the size is right."""
    if tuple(planes.shape[-2:]) == tuple(size):
        return planes
    return F.interpolate(planes.float(), size=size, mode="bilinear", align_corners=False)


class _Rows:
    """Which rows of `source` rows the rows top … bottom of `target` rows are made of, as in `resized`."""

    def __init__(self, source: int, target: int, top: int, bottom: int) -> None:
        place = torch.arange(top, bottom, dtype=torch.float32).add_(0.5).mul_(source / target).sub_(0.5).clamp_(min=0)
        self.low = place.long().clamp_(max=source - 1)
        self.high = (self.low + 1).clamp_(max=source - 1)
        self.share = (place - self.low).clamp_(0, 1)[:, None]
        self.first, self.last = int(self.low[0]), int(self.high[-1])

    def resized(self, rows: Tensor, start: int, width: int) -> Tensor:
        """The rows at `width`; `rows` (N, C, h, w) begin with row `start` of the source."""
        rows = resized(rows, (rows.shape[-2], width))
        low, high, share = (part.to(rows.device) for part in (self.low - start, self.high - start, self.share))
        return rows[..., low, :] * (1 - share) + rows[..., high, :] * share


def _resized_strips(parts: Iterator[Tensor], source: int, size: tuple[int, int], rows: int) -> Iterator[Tensor]:
    """Strips of `source` rows in all, resized to `size` and `rows` at a time."""
    held, start = next(parts), 0
    for top in range(0, size[0], rows):
        places = _Rows(source, size[0], top, min(top + rows, size[0]))
        while start + held.shape[2] <= places.last:
            held = torch.cat([held, next(parts)], dim=2)
        yield places.resized(held, start, size[1])
        done = int(places.low[-1]) - start
        held, start = held[:, :, done:], start + done
