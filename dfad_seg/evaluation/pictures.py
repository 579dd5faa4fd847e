"""Pictures of label maps: coloured masks, and a row of panels for one evaluated image."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_whole
from dfad_seg.common.labels import IGNORED
from dfad_seg.common.palette import Colour

Picture = NDArray[np.uint8]

BLACK = (0, 0, 0)
CORRECT = (225, 225, 225)
WRONG = (214, 39, 40)
_INK = (40, 40, 40)
_MARGIN = 8
_LINE = 24
_SWATCH = 14
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.5


def colourise(mask: ArrayLike | Tensor, palette: Sequence[Colour]) -> Picture:
    """Integer labels `(H, W)` → uint8 RGB `(H, W, 3)`; labels without a colour, as ignored ones, are black."""
    labels = _array(mask).astype(np.int64)
    table = np.array([*palette, BLACK], dtype=np.uint8)
    return table[np.where((labels >= 0) & (labels < len(palette)), labels, len(palette))]


def write_comparison_picture(
    path: str | Path,
    image: ArrayLike | Tensor,
    target: ArrayLike | Tensor,
    predictions: Mapping[str, ArrayLike | Tensor],
    classes: Sequence[str],
    palette: Sequence[Colour],
    *,
    truth_name: str = "truth",
    heights: tuple[int, int] = (160, 240),
) -> None:
    """Write a PNG: image | truth | each prediction | errors of the last, and a legend of the classes that occur.

    Args:
        image: float `(K, H, W)` in [0, 1] or uint8 `(H, W, K)`; resized if the label maps are larger.
        target: integer labels `(H, W)`.
        predictions: by name, integer labels `(H, W)`; one at least.
        truth_name: what the truth is called.
        heights: lower pictures are enlarged by a whole factor to the first, in pixels, higher ones reduced to the
            second; so the memory does not grow with the image.
    """
    truth, found = _array(target), {name: _array(labels) for name, labels in predictions.items()}
    last = list(found)[-1]
    evaluated = np.count_nonzero(truth != IGNORED)
    wrong = np.count_nonzero((found[last] != truth) & (truth != IGNORED))
    size = min(len(truth), heights[1]), max(1, round(truth.shape[1] * min(1, heights[1] / len(truth))))
    shown = np.ix_(*(np.arange(kept) * side // kept for kept, side in zip(size, truth.shape, strict=True)))
    truth, found = truth[shown], {name: labels[shown] for name, labels in found.items()}
    picture = as_picture(image)
    if picture.shape[:2] != size:
        how = cv2.INTER_AREA if picture.shape[0] > size[0] else cv2.INTER_LINEAR
        picture = np.asarray(cv2.resize(picture, size[::-1], interpolation=how), np.uint8)
    panels = {"image": picture, truth_name: colourise(truth, palette)}
    panels |= {name: colourise(labels, palette) for name, labels in found.items()}
    share = f"{100 * wrong / evaluated:.1f} %" if evaluated else "-"
    errors = np.where(truth == IGNORED, -1, found[last] != truth)
    panels[f"{last}'s errors: {share}"] = colourise(errors, (CORRECT, WRONG))
    body = beside([captioned(enlarge(panel, heights[0]), name) for name, panel in panels.items()])
    entries = [(classes[label], palette[label]) for label in present(len(classes), truth, *found.values())]
    entries += [("ignored", BLACK)] if (truth == IGNORED).any() else []
    entries += [("wrong", WRONG)] if wrong else []
    write_png(path, framed([body, legend(entries, body.shape[1])]))


def as_picture(image: ArrayLike | Tensor) -> Picture:
    """Float `(K, H, W)` in [0, 1], or uint8 `(H, W, K)`, → uint8 RGB `(H, W, 3)`.

    One or two channels are drawn as grey, their mean; of more than three the first three count as red, green, blue.
    """
    array = _array(image)
    if array.dtype != np.uint8:
        array = np.nan_to_num(array.astype(np.float32)).clip(0, 1).transpose(1, 2, 0) * 255 + 0.5
    if array.shape[-1] < 3:
        array = array.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    return np.ascontiguousarray(array[..., :3], np.uint8)


def present(num_classes: int, *masks: ArrayLike | Tensor) -> list[int]:
    """The class labels that occur in any of the label maps, ascending."""
    found = set().union(*(np.unique(_array(mask)).tolist() for mask in masks))
    return [label for label in range(num_classes) if label in found]


def enlarge(picture: Picture, min_height: int) -> Picture:
    """Repeat pixels by the smallest whole factor that reaches `min_height`, up to 4096 pixels of width."""
    height, width = picture.shape[:2]
    factor = min(-(-min_height // height), 4096 // width)
    return picture.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else picture


def captioned(picture: Picture, caption: str) -> Picture:
    """The picture with one line of text above it, widened with white where the text is wider."""
    return stacked([_written(caption), picture])


def beside(pictures: Sequence[Picture]) -> Picture:
    """Pictures from left to right with a gap, aligned at the top, on white."""
    return stacked([picture.swapaxes(0, 1) for picture in pictures], gap=_MARGIN).swapaxes(0, 1)


def stacked(pictures: Sequence[Picture], gap: int = 0) -> Picture:
    """Pictures from top to bottom, aligned at the left, on white."""
    width = max(picture.shape[1] for picture in pictures)
    gaps = [*[gap] * (len(pictures) - 1), 0]
    white = [((0, below), (0, width - picture.shape[1]), (0, 0)) for picture, below in zip(pictures, gaps, strict=True)]
    padded = [np.pad(picture, sides, constant_values=255) for picture, sides in zip(pictures, white, strict=True)]
    return np.concatenate(padded)


def framed(parts: Sequence[Picture]) -> Picture:
    """Parts stacked with a margin all around."""
    return np.pad(stacked(parts, gap=_MARGIN), ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)), constant_values=255)


def legend(entries: Iterable[tuple[str, tuple[int, int, int]]], width: int) -> Picture:
    """Colour fields with names, in as many lines as `width` asks for."""
    lines: list[list[Picture]] = [[]]
    for name, colour in entries:
        field = np.full((_LINE, _SWATCH, 3), 255, np.uint8)
        field[5 : 5 + _SWATCH] = _INK
        field[6 : 4 + _SWATCH, 1:-1] = colour
        lines[-1].append(beside([field, _written(name)]))
        if len(lines[-1]) > 1 and beside(lines[-1]).shape[1] > width:
            lines.append([lines[-1].pop()])
    return stacked([beside(line) for line in lines if line] or [_written("")])


def _written(text: str) -> Picture:
    """A line of text."""
    strip = np.full((_LINE, cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)[0][0] + 4, 3), 255, np.uint8)
    cv2.putText(strip, text, (0, _LINE - 7), _FONT, _FONT_SCALE, _INK, 1, cv2.LINE_AA)
    return strip


def write_png(path: str | Path, picture: Picture) -> None:
    """Write a uint8 RGB picture as PNG, whole."""
    done, data = cv2.imencode(".png", picture[..., ::-1])
    if not done:
        raise InputError(f"the picture {path} of size {picture.shape[:2]} cannot be encoded as PNG.")
    write_whole(path, lambda handle: handle.write(data.tobytes()))


def _array(values: ArrayLike | Tensor) -> NDArray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
