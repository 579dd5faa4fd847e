"""What is read of real images: for an evaluation as decoded, with labels and label maps that were predicted before; and
images without labels of one's own, for a student to learn from beside generated ones."""

import functools
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dfad_seg.common.errors import InputError
from dfad_seg.common.labels import IGNORED
from dfad_seg.common.samples import read_image
from dfad_seg.config import Config
from dfad_seg.datasets import EvalTransform, SegmentationDataset, TrainingData, TrainTransform, eval_loader
from dfad_seg.datasets.check import label_warnings
from dfad_seg.datasets.folders import list_files
from dfad_seg.evaluation import EvaluationOptions, Stored
from dfad_seg.segmentors import read_segmentor_file

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


LARGEST = 1.5
"""Images are scaled to 1 to so many times the larger side of a crop."""
SUFFIXES = (".png", ".jpg", ".bmp", ".webp", ".tif", ".tiff", ".npy", ".dcm")
KEPT = 256
"""Decoded images that stay in memory, at most so large that they can be scaled for a crop."""


def transfer_images(config: Config) -> Callable[[int, tuple[int, int], torch.Generator], Tensor] | None:
    """(count, (H, W), rng) → random crops (count, K, H, W) in [0, 1] of the images in the config's `transfer_images`.

    They depend on the rng alone, and are read as those of the data set: of the networks' channels, with its range. None
    where the config names no folder.
    """
    folder = getattr(config, "transfer_images", None)
    if folder is None:
        return None
    files = list(list_files(Path(folder), SUFFIXES, "transfer image").values())
    channels = image_channels(config)
    span = None if config.dataset is None else getattr(config.dataset.options, "img_range", None)
    side = int(LARGEST * max(config.image_size))

    @functools.lru_cache(maxsize=KEPT)
    def read(place: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = read_image(files[place], channels, span, "transfer image").upright()
        pair = pixels, np.zeros(pixels.shape[:2], np.uint8)
        return EvalTransform(short_side=side)(*pair) if min(pixels.shape[:2]) > side else pair

    read(0)  # what is wrong with all of them is said before anything begins

    @functools.cache
    def cropped(size: tuple[int, int]) -> TrainTransform:
        return TrainTransform(TrainingData(short_side=max(size), scale=(1.0, LARGEST)), size, channels)

    def draw(count: int, size: tuple[int, int], rng: torch.Generator) -> Tensor:
        dice = torch.randint(2**31, (count, 2), generator=rng, device=rng.device).tolist()
        crops = [cropped(size)(*read(place % len(files)), seed)[0] for place, seed in dice]
        planes = [torch.from_numpy(crop.transpose(2, 0, 1).copy()) for crop in crops]
        return torch.stack([each.float() / 255 if each.dtype == torch.uint8 else each for each in planes])

    return draw


def image_channels(config: Config) -> int:
    """Of the images that the networks take: what a section says, or the file of a saved network; else 3."""
    for section in (config.teacher, config.student):
        if section is not None and section.name == "saved":
            with suppress(InputError):  # who needs the network says what is wrong; stored predictions need none
                return int(read_segmentor_file(section.options.checkpoint)["spec"].get("in_channels", 3))
        if channels := getattr(section.options if section is not None else None, "in_channels", None):
            return int(channels)
    return 3
