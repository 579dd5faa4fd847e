"""What can be chosen about an evaluation: how a network is applied, and to what."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from dfad_seg.common.values import NonNegative, Positive, Rate, Size, options

_TYPES = {"auto": None, "fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@options
class Inference:
    """How a network is applied to an image.

    With the defaults an image goes through the network whole and once. With several `scales` or `flip`, the softmax of
    each variant's logits, resized to the truth's size, is averaged, as MMSegmentation's `SegTTAModel` does.
    """

    crop_size: Size | None = None
    """Height and width of a sliding window; none: whole images."""
    crop_stride: Size | None = None
    """Rows and columns between two windows; default two thirds of crop_size."""
    scales: tuple[Rate, ...] = (1.0,)
    """Sizes at which each image is predicted, as factors; the probabilities are averaged."""
    flip: bool = False
    """Also predict the mirrored image, and average."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the forward pass; auto: that of a training around it, else bf16 where this machine is faster so, else fp32."""

    def __post_init__(self) -> None:
        if self.crop_stride is not None and self.crop_size is None:
            raise ValueError(f"the stride {_pair(self.crop_stride)} needs a window: give crop_size too")
        if self.crop_size is not None:
            windows = f"windows of {_pair(self.crop_size)} pixels every {_pair(self.stride)}"
            if any(step > side for step, side in zip(self.stride, self.crop_size, strict=True)):
                raise ValueError(f"{windows} leave gaps: crop_stride must not exceed crop_size")
        if not self.scales or not all(0 < scale < 100 for scale in self.scales):
            raise ValueError(f"scales are {list(self.scales)}: at least one is needed, each above 0 and below 100")

    @property
    def stride(self) -> tuple[int, int]:
        """Rows and columns between two windows."""
        assert self.crop_size is not None
        return self.crop_stride or (max(1, 2 * self.crop_size[0] // 3), max(1, 2 * self.crop_size[1] // 3))

    @property
    def averages(self) -> bool:
        """Whether the softmax of variants is averaged; else the scores are the logits."""
        return self.flip or self.scales != (1.0,)

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """The context of each forward pass; `auto` is fp32 here, as only who starts an evaluation can choose."""
        kind = _TYPES[self.precision]
        return nullcontext() if kind is None else torch.autocast(device.type, kind)


@options
class EvaluationOptions(Inference):
    """How a network is scored on the data set."""

    split: str = "val"
    """Of the data set."""
    every: NonNegative = 0
    """Iterations between two evaluations; 0: at the end only. The last one is never skipped."""
    short_side: Positive | None = None
    """Resize image and labels to this shorter side; none: native size."""
    batch_size: Positive = 8
    """Images that are read together."""
    num_workers: NonNegative = 1
    """Processes that read images; 0: none but the main one."""


def _pair(values: tuple[int, int]) -> str:
    return f"{values[0]}x{values[1]}"
