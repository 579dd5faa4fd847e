"""What an evaluation reads: images as decoded, labels, and label maps that were predicted before."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dfad_seg.common.errors import InputError
from dfad_seg.common.labels import IGNORED
from dfad_seg.datasets import SegmentationDataset, eval_loader
from dfad_seg.datasets.check import label_warnings
from dfad_seg.evaluation import EvaluationOptions, Stored

_PIXELS = 2**25  # that are read together, so that large images do not fill the memory by their number


class EvaluationSamples(Dataset):
    """The samples of a data set as bytes: a quarter of what the processes would have to pass on as floats.

    `samples[i]` is a dict: "image" uint8 (H, W, K), or float32 (K, H, W) where files have more bits, "mask" uint8
    (H, W), "name", "index", and for each of `stored` its label map, uint8 (H, W), at the mask's size. Without `images`
    no image file is opened.
    """

    def __init__(
        self, dataset: SegmentationDataset, stored: Mapping[str, Stored] | None = None, *, images: bool = True
    ) -> None:
        self.dataset, self.stored, self.images = dataset, dict(stored or {}), images
        self._names, self._ids = dataset.names, dataset.ids

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.images:
            image, mask = self.dataset.read(index)
        else:
            # The transform resizes pairs; where the image is not wanted, the mask stands in for it.
            image = mask = self.dataset.load_labels(index)
        if self.dataset.transform is not None:
            image, mask = self.dataset.transform(image, mask, None)
        sample: dict[str, Any] = {"mask": _tensor(mask), "name": self._names[index], "index": index}
        if self.images:
            sample["image"] = _tensor(image if image.dtype == np.uint8 else image.transpose(2, 0, 1))
        for key, reader in self.stored.items():
            labels = reader.read(self._names[index], self._ids[index], mask.shape)
            sample[key] = _tensor(self._without_gaps(labels, mask, self._names[index]))
        return sample

    def _without_gaps(self, labels: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
        """Stored labels with class 0 where they have none; that is allowed on ignored pixels, which do not count."""
        missing = labels == IGNORED
        gaps = int(np.count_nonzero(missing & (mask != IGNORED)))
        if gaps:
            raise InputError(
                f"the prediction of image '{name}' has no class on {gaps} pixels that the truth has one for. "
                "Every evaluated pixel needs a class."
            )
        return np.where(missing, np.uint8(0), labels)


def warn_of_labels(dataset: SegmentationDataset) -> None:
    """Say on stderr what was left out of a data set, and whether its label values look wrong."""
    for line in label_warnings(dataset):
        print(f"warning: {line}", file=sys.stderr)


def evaluation_loader(
    samples: EvaluationSamples, options: EvaluationOptions, *, rank: int = 0, world_size: int = 1
) -> DataLoader:
    """Batches of the samples, each once, in order; lists where sizes differ. Rank `r` takes r, r + world_size, …

    Fewer images are read together where the first one is so large that memory would run out, and by no more processes
    than there are batches.
    """
    size = options.batch_size
    if len(samples) and size > 1:
        size = min(size, max(1, _PIXELS // samples[0]["mask"].numel()))
    workers = min(options.num_workers, -(-len(samples) // (size * world_size)))
    return eval_loader(samples, batch_size=size, num_workers=workers, rank=rank, world_size=world_size)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
