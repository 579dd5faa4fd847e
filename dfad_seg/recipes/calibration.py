"""A run's generator, for what needs images after the training: no real one is read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from dfad_seg.common.errors import InputError
from dfad_seg.config import Config, GameConfig, load_config
from dfad_seg.distill.rehearsal import generated
from dfad_seg.generators import ImageGenerator
from dfad_seg.recipes.build import build_generator
from dfad_seg.runs import checkpoints, read_checkpoint
from dfad_seg.segmentors import Segmentor

BATCH = 8


def generated_images(
    run: str | Path, count: int, *, network: Segmentor, size: tuple[int, int] | None = None
) -> Iterator[Tensor]:
    """Images (1 to 8, K, H, W) in [0, 1] from the generator in a run's newest checkpoint; `count` in all.

    Args:
        run: a run directory of method dfad, with a checkpoint.
        count: how many.
        network: one of the run's, which says the classes and channels.
        size: (H, W); default: the run's `image_size`. Some generators make only that.

    Raises:
        InputError: the run has no trained generator, or it does not make this size. Raised at the call.
    """
    config, generator = load_generator(run, network)
    batches = generated(generator, count, batch_size=BATCH, image_size=size or config.image_size, seed=config.seed)
    return itertools.chain([next(batches)], batches)  # the first now, so that an impossible size is refused here


def load_generator(run: str | Path, network: Segmentor) -> tuple[Config, ImageGenerator]:
    """The config and the generator of a run's newest checkpoint, on the CPU, in training mode as it was.

    Raises:
        InputError: there is none.
    """
    run = Path(run)
    if not (run / "config.yaml").is_file():
        raise InputError(
            f"{run} is no run directory, and the generator that makes the images is in one. Give the run directory"
            " of a data-free distillation."
        )
    config = load_config(run / "config.yaml")
    newest = next(reversed(checkpoints(run)), None)
    state = None if newest is None else read_checkpoint(newest)
    if not isinstance(config, GameConfig) or state is None or "generator" not in state["networks"]:
        why = "it has no checkpoint" if state is None else f"its method is {config.method}"
        raise InputError(
            f"{run} has no trained generator to make images with: {why}. Needed is the run directory of a"
            " distillation with method dfad, with its checkpoints/."
        )
    generator = build_generator(config, network)
    assert generator is not None
    try:
        generator.load_state_dict(state["networks"]["generator"])
    except RuntimeError as error:
        raise InputError(
            f"the generator in {newest} does not fit the run's config ({str(error).splitlines()[0]}): another"
            " version of this program wrote it."
        ) from None
    return config, generator.train()
