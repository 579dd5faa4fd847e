"""What a run is and will take, measured on three iterations, and a run that is as long as one has time for."""

from __future__ import annotations

import dataclasses
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from dfad_seg.common.errors import InputError, Interrupted
from dfad_seg.common.values import plain
from dfad_seg.config import Config, dump_config, parse_config
from dfad_seg.distill import DataFree, Hooks, batch_norm_mode, distil
from dfad_seg.recipes.build import build_experiment
from dfad_seg.recipes.cutting import without_rehearsal
from dfad_seg.recipes.device import launched, torch_settings
from dfad_seg.recipes.provenance import student_steps
from dfad_seg.recipes.transfer import transfer_images
from dfad_seg.segmentors import count_flops, count_parameters

ITERATIONS = 3
MORE = 2
"""Steps on remembered images beyond a config's own, to tell what one of them takes."""
PASSES = 6
"""A cut by agreement passes each of its images forwards and backwards through the teacher about so often."""


class Probe(NamedTuple):
    """What some iterations took."""

    peak: int
    """Bytes of memory, of the process since it began."""
    seconds: float
    """The fastest iteration; of a single one, all of it."""


def measured(config: Config, iterations: int) -> Probe:
    """Train for some iterations and keep nothing: what is wanted is what they cost; raises InputError as `train`."""
    assert isinstance(config, DataFree)
    times = [time.perf_counter()]
    with torch_settings(config):
        fabric, made = launched(config), build_experiment(without_rehearsal(config))
        assert made.generator is not None
        hooks = Hooks(
            stop_requested=lambda: len(times) > iterations, advance=lambda _: times.append(time.perf_counter())
        )
        players = (made.fast_teacher(), made.trained, made.generator)
        try:
            transfer = transfer_images(config)
            distil(*players, config, losses=made.losses, transfer=transfer, fabric=fabric, hooks=hooks)
        except Interrupted:
            pass
    seconds = min(after - before for before, after in itertools.pairwise(times))
    if torch.cuda.is_initialized():
        return Probe(torch.cuda.max_memory_reserved(), seconds)
    # Not getrusage, whose maximum a new process inherits from the one that started it.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return Probe(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), seconds)


@dataclass(frozen=True)
class Price:
    """What a data-free run takes on this machine: training alone, no evaluation or report."""

    seconds: float
    """Of the game."""
    cutting: float
    """Seconds before it, in which a student is cut."""
    peak: int
    """Bytes of memory."""

    def __str__(self) -> str:
        cut = f", {self.cutting / 60:.1f} of them to cut the student" if self.cutting else ""
        minutes = (self.seconds + self.cutting) / 60
        return f"about {minutes:.1f} minutes of training{cut}; {self.peak / 2**30:.1f} GiB of memory"


def price(config: Config) -> Price:
    """What the run will take, from three iterations."""
    if not isinstance(config, DataFree):
        raise InputError(f"only data-free runs are timed beforehand, and method is {config.method}.")
    first = measured(config, ITERATIONS)
    each, remembered = first.seconds, 0.0
    steps = student_steps(config)
    replay = config.replay
    if replay is not None and len({again for _, again in steps}) > 1:
        more = dataclasses.replace(replay, steps=replay.steps + MORE, final_steps=None)
        longer = dataclasses.replace(config, replay=more)  # type: ignore[call-arg]
        remembered = max(0.0, measured(longer, ITERATIONS).seconds - each) / MORE
        each -= remembered * replay.steps
    seconds = sum(each + remembered * again for _, again in steps)
    cutting = 0.0
    if config.cuts and config.student is not None and config.student.options.needs_images:
        options = config.student.options
        cutting = first.seconds * (options.rehearsal + PASSES * options.images / config.batch_size) / 2
    return Price(seconds, cutting, first.peak)


def with_minutes(config: Config, minutes: float) -> Config:
    """The config with the lengths that take about so many minutes here; raises InputError as `price`."""
    if not minutes > 0:
        raise InputError(f"--minutes is {minutes:g}; more than 0 is needed.")
    found = price(config)
    return scaled(config, 60 * minutes / (found.seconds + found.cutting))


def scaled(config: Config, factor: float) -> Config:
    """The config with all lengths times a factor: iterations, warm-up, memory, average, intervals, rehearsal."""
    iterations = max(1, round(config.iterations * factor))
    factor = iterations / config.iterations
    values = plain(config) | {"iterations": iterations}
    _times(values, ("save_every", "preview_every"), factor)
    _times(values.get("evaluation", {}), ("every",), factor)
    _times(values["schedule"], ("warmup", "every"), factor)
    if values["schedule"].get("warmup"):
        values["schedule"]["warmup"] = min(values["schedule"]["warmup"], max(1, iterations // 4))
    if isinstance(config, DataFree) and config.replay is not None:
        least = max(config.batch_of(size) for size in config.progressive_sizes or (config.image_size,))
        values["replay"]["size"] = max(least, round(config.replay.size * min(1.0, factor)))
    if config.ema_decay is not None:
        # The average reaches back over the same share of the run.
        values["ema_decay"] = min(0.9999, max(0.5, 1 - (1 - config.ema_decay) / factor))
    if config.cuts:
        _times(values["student"], ("rehearsal",), factor)
    return parse_config(values)


def _times(values: dict[str, Any], names: tuple[str, ...], factor: float) -> None:
    for name in names:
        if values.get(name):
            values[name] = max(1, round(values[name] * factor))


def describe(config: Config) -> str:
    """The resolved config as YAML, and the cost of each network and of the run as comments: `--dry-run`."""
    experiment = build_experiment(without_rehearsal(config))
    height, width = config.image_size
    costs = {
        role: (network, count_flops(network, config.image_size))
        for role, network in experiment.networks(experiment.trained).items()
    }
    if (generator := experiment.generator) is not None:
        latents = generator.sample(1, config.image_size, torch.Generator().manual_seed(0))
        with torch.no_grad(), batch_norm_mode(generator, "running"), FlopCounterMode(display=False) as counter:
            generator(latents)
        costs["generator"] = generator, counter.get_total_flops()
    lines = [dump_config(config), f"# cost at {height}x{width}, one image, forward:\n"]
    for role, (network, flops) in costs.items():
        lines.append(f"# {role}: {count_parameters(network):,} parameters, {flops / 1e9:.3f} GFLOPs\n")
    if config.data_free:
        lines.append(f"# {price(config)}\n")
    return "".join(lines)
