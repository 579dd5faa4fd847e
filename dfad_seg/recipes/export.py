"""Write a trained network in a format for others; score and time what was written."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from dfad_seg.common.environment import cpu_name
from dfad_seg.common.errors import InputError, choose, explained
from dfad_seg.common.files import check_target
from dfad_seg.common.reading import file_hash, read_json
from dfad_seg.common.speed import measure_latency
from dfad_seg.config import Config, GameConfig, load_config
from dfad_seg.distill.rehearsal import generated
from dfad_seg.exporting import DEFAULT_SIZE, FORMATS, export, export_int8
from dfad_seg.generators import ImageGenerator
from dfad_seg.recipes.build import build_generator, evaluation_dataset
from dfad_seg.recipes.evaluate import evaluate, evaluation_options
from dfad_seg.recipes.sources import network_file, run_config
from dfad_seg.runs import checkpoints, read_checkpoint
from dfad_seg.segmentors import Segmentor, load_segmentor, optimize_for_distillation

BATCH = 8
SECONDS = 2.0
"""For which each network is timed."""
_PROVENANCE = ("method", "seed", "real_images_used_for_training", "dfad_seg", "git_commit")


def export_from_arguments(**arguments: Any) -> int:
    """`dfad-seg export`, whose arguments are those of `cli.arguments.export`; returns the exit code."""
    given = SimpleNamespace(**arguments)
    chosen = choose(FORMATS, given.format, "export format")
    if given.int8 and given.format != "onnx":
        raise InputError(f"--int8 goes with --format onnx, not {given.format}.")
    if given.base is not None and given.format != "mmseg":
        raise InputError(f"--base goes with --format mmseg, not {given.format}.")
    file = network_file(given.source)
    path = Path(given.out) if given.out is not None else file.parent / chosen.name.replace("student", file.stem)
    check_target(path, "--out", folder=chosen.is_folder)
    if given.int8:
        target = path.with_name(f"{path.stem}_int8{path.suffix}")
        check_target(target, "--int8")
    network = load_segmentor(file, trust=given.trust)
    score = _scoring(file, given.split, given.cfg_options, batch_size=None if given.dynamic else 1)
    height_width = DEFAULT_SIZE if given.size is None else (given.size[0], given.size[1])
    images = None
    if given.int8:
        # Before anything is written: a run without a generator ends here.
        images = generated_images(
            file.parent, given.calibration_images, network=network, size=None if given.dynamic else height_width
        )
    asked = {"dynamic": given.dynamic, "size": height_width, "base": given.base}
    options: dict[str, Any] = {key: asked[key] for key in asked if key in chosen.options.__dataclass_fields__}
    written = [export(network, path, format=given.format, origin=_origin(file), **options)]
    print(written[0].report(), flush=True)
    if images is not None:
        batches = (image[None] for batch in images for image in batch) if not given.dynamic else images
        written.append(export_int8(path, target, batches, segmentor=network))
        print(written[1].report(), flush=True)
    runs: dict[str, Any] = {"the network": optimize_for_distillation(network.eval(), height_width, trainable=False)}
    runs |= {made.format: chosen.load(made.path) for made in written if chosen.load is not None}
    for name, run in runs.items():
        if chosen.load is not None:
            time = measure_latency(run, (network.in_channels, *height_width), seconds=SECONDS)
            print(f"one image of {height_width[0]}x{height_width[1]} on {cpu_name()}, {name}: {time}", flush=True)
        if score is not None:
            score(run if run is runs["the network"] else lambda images: network.class_logits(run(images)), name)  # noqa: B023
    return 0


def _origin(path: Path) -> dict[str, Any]:
    """What the metadata says about where the network comes from: hashes, and the run's provenance."""
    origin: dict[str, Any] = {"source_sha256": file_hash(path)}
    file = path.parent / "provenance.json"
    if run_config(path) is not None and file.is_file():
        values = read_json(file, "provenance")
        if isinstance(values, Mapping):
            origin["provenance"] = {key: values[key] for key in _PROVENANCE if key in values}
            origin["provenance_sha256"] = file_hash(file)
    return origin


def _scoring(
    file: Path, split: str | None, overrides: Sequence[str], batch_size: int | None
) -> Callable[[Any, str], None] | None:
    """What prints the mIoU of a network, by its name, on a split of the run's data set; None without a split."""
    if split is None:
        return None
    found = run_config(file)
    config = None if found is None else load_config(found, list(overrides))
    if config is None or config.dataset is None:
        raise InputError(f"{file.parent} is no run directory with a data set, so there is no split '{split}' to score.")
    data = config
    evaluation_dataset(data, evaluation_options(data, {"split": split}))  # which is found before the work

    def score(network: Any, name: str) -> None:
        found = evaluate(data, network, title=f"scoring {name}", device="cpu", split=split, batch_size=batch_size)
        print(f"mIoU on {split}: {100 * found.mIoU:.3f} %, {name}", flush=True)

    return score


def generated_images(
    run: str | Path, count: int, *, network: Segmentor, size: tuple[int, int] | None = None
) -> Iterator[Tensor]:
    """`count` images as batches (1 to 8, K, H, W) in [0, 1] from the generator in a run's newest checkpoint.

    `network` is one of the run's, which says the classes and channels; `size` (H, W) by default its `image_size`. An
    impossible size is refused at the call.
    """
    config, generator = load_generator(run, network)
    batches = generated(generator, count, batch_size=BATCH, image_size=size or config.image_size, seed=config.seed)
    return itertools.chain([next(batches)], batches)  # the first now, so that an impossible size is refused here


def load_generator(run: str | Path, network: Segmentor) -> tuple[Config, ImageGenerator]:
    """The config and the generator of a run's newest checkpoint, on the CPU, in training mode as it was."""
    run = Path(run)
    if not (run / "config.yaml").is_file():
        raise InputError(f"{run} is no run directory, and the generator that makes the images is in one.")
    config, newest = load_config(run / "config.yaml"), next(reversed(checkpoints(run)), None)
    state = None if newest is None else read_checkpoint(newest)
    if not isinstance(config, GameConfig) or state is None or "generator" not in state["networks"]:
        why = "it has no checkpoint" if state is None else f"its method is {config.method}"
        raise InputError(
            f"{run} has no trained generator to make images with: {why}. Needed is the run directory of a"
            " distillation with method dfad, with its checkpoints/."
        )
    generator = build_generator(config, network)
    assert generator is not None
    what = f"the generator in {newest} does not fit the run's config"
    with explained(what, "Another version of this program wrote it."):
        generator.load_state_dict(state["networks"]["generator"])
    return config, generator.train()
