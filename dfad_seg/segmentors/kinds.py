"""What a source of networks is: a line of the table `SOURCES`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from dfad_seg.common.values import FileName, Kind, options
from dfad_seg.segmentors.base import Segmentor
from dfad_seg.segmentors.contract import Contract

WEIGHT_OPTIONS = ("checkpoint", "checkpoint_key", "encoder_checkpoint", "encoder_weights", "pretrained", "new_head")
"""These name files or downloads that went into the weights; saved weights stand for them."""


DOWNLOADED = (
    "encoder_weights are downloaded, which needs internet; without it, leave them out and give a local file as"
    " encoder_checkpoint."
)


@options
class SourceOptions(Contract):
    """What every source but `saved` takes."""

    checkpoint: FileName | None = None
    """A file of weights, loaded strictly; what a trainer wrapped around them is taken off."""
    checkpoint_key: str | None = None
    """Which weights in a file that has several, such as `model_ema`."""


@dataclasses.dataclass
class Network:
    """What a source builds.

    Attributes:
        contract: options of `Contract` that it knows; the user's own go before them.
        palette: one RGB triple (0-255) per class, where the source knows it.
        spec: what a saved network stores in place of the source's own options, where those name files.
        settle: looks at the finished segmentor before anybody uses it; raises InputError if it is not usable.
        fixed_size: (H, W) where the network takes no other.
    """

    module: nn.Module
    contract: dict[str, Any] = dataclasses.field(default_factory=dict)
    palette: Sequence[Sequence[int]] | None = None
    spec: dict[str, Any] | None = None
    settle: Callable[[Segmentor], None] | None = None
    fixed_size: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Source(Kind[Any]):
    """A kind of network: `build(options, num_classes=...)` gives a `Network`, or a finished `Segmentor`.

    Attributes:
        runs_code: whether to rebuild a network from its stored spec runs code that the file names.
        knows_range: whether it knows how its networks' images were normalised; if not, mean and std are needed.
    """

    runs_code: Callable[[Mapping[str, Any]], bool] = lambda spec: False
    knows_range: bool = True
