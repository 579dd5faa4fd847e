"""From logits to class labels, in one place: what is not a number has no class, and is never scored as one."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from dfad_seg.common.errors import InputError, printable

IGNORED = 255
"""The label of pixels that take no part in anything."""
_STRIP = 2**16  # pixels of a plane that are worked on at once, so that they stay in the processor's cache


def labels_of(logits: Tensor, names: Sequence[str] | None = None) -> Tensor:
    """The class of the highest logit (or probability) of each pixel, of several the first.

    A logit of -inf rules its class out; a pixel whose highest logit is not finite has no class.

    Args:
        logits: float (N, C, H, W); or (N, C) of a classifier, for labels (N,).
        names: of the N images, for the message.

    Returns:
        (N, H, W), uint8 for up to 256 classes and int64 for more.

    Raises:
        InputError: a pixel's logits hold nan, or its highest one is infinite; it names the image.
    """
    planes = logits.dim() == 4 and logits.device.type == "cpu" and logits.dtype == torch.float32
    if planes and logits.stride(-1) == 1 and logits.shape[1] <= 256:
        found, finite = _argmax_of_planes(logits.detach().numpy())
        labels = torch.from_numpy(found)
    else:
        # On a CPU torch's max over planes is several times faster than its argmax, and promises the first maximum too.
        best, labels = logits.max(dim=1)
        finite = bool(best.isfinite().all())
        labels = labels.to(torch.uint8) if logits.shape[1] <= 256 else labels
    if not finite:
        _refuse(logits, names)
    return labels


def label_counts(mask: np.ndarray) -> np.ndarray:
    """Pixels of each label of a uint8 mask: int64 (256,)."""
    counts = np.zeros(256, np.int64)
    flat = mask.reshape(-1)
    for start in range(0, flat.size, _STRIP):  # whose copy as int64 is all that the count costs
        counts += np.bincount(flat[start : start + _STRIP], minlength=256)
    return counts


def mapped(mask: np.ndarray, table: np.ndarray) -> np.ndarray:
    """`table[mask]` of a uint8 mask and 256 values, without NumPy's copy of the mask as int64."""
    return np.asarray(cv2.LUT(np.ascontiguousarray(mask, np.uint8), table))


def _refuse(logits: Tensor, names: Sequence[str] | None) -> None:
    wrong = (~logits.amax(dim=1).isfinite()).flatten(1).sum(dim=1).tolist()
    place = next(place for place, pixels in enumerate(wrong) if pixels)
    name = f"image '{printable(names[place])}'" if names is not None else f"image {place} of the batch"
    raise InputError(
        f"the network's logits for {name} are nan or infinite at {wrong[place]} of {logits[0, 0].numel()} pixels, "
        "which therefore have no class. Check the network's weights and its normalisation; half precision may also "
        "be too narrow for it: try fp32."
    )


def _argmax_of_planes(scores: np.ndarray) -> tuple[np.ndarray, bool]:
    """A running maximum over whole planes: vectorised where torch's argmax goes pixel by pixel, 30 times faster.

    Returns the labels, and whether all maxima are finite.
    """
    images, classes, height, width = scores.shape
    labels = np.zeros((images, height, width), dtype=np.uint8)
    rows = max(1, _STRIP // max(1, width))
    finite = True
    for image in range(images):
        for top in range(0, height, rows):
            planes, label = scores[image, :, top : top + rows], labels[image, top : top + rows]
            best = planes[0].copy()
            higher = np.empty(best.shape, dtype=bool)
            for index in range(1, classes):
                np.greater(planes[index], best, out=higher)
                np.maximum(best, planes[index], out=best)  # nan wins, and stays
                # Later classes have larger numbers, so a maximum writes them where they win.
                np.maximum(label, higher.view(np.uint8) * np.uint8(index), out=label)
            finite = finite and bool(np.isfinite(best, out=higher).all())
    return labels, finite
