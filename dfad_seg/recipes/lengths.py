"""What a run is and will take, measured on three iterations; a run as long as the time, a batch as large as memory."""

import dataclasses
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from dfad_seg.common.errors import InputError, Interrupted
from dfad_seg.common.speed import measure_latency
from dfad_seg.common.values import plain
from dfad_seg.config import Config, dump_config, parse_config
from dfad_seg.distill import DataFree, Hooks, distil
from dfad_seg.evaluation import predict
from dfad_seg.recipes.build import build_experiment, evaluation_dataset
from dfad_seg.recipes.cutting import without_rehearsal
from dfad_seg.recipes.device import launched, say, torch_settings
from dfad_seg.recipes.provenance import student_steps
from dfad_seg.recipes.transfer import transfer_images
from dfad_seg.segmentors import count_flops, count_parameters

ITERATIONS = 3
MORE = 2
"""Steps on remembered images beyond a config's own, to tell what one of them takes."""
PASSES = 6
"""A cut by agreement passes each of its images forwards and backwards through the teacher about so often."""
SHARE = 0.85  # of the free memory: the line through two peaks is not exact, and evaluation needs some


class Probe(NamedTuple):
    """What some iterations took."""

    peak: int
    """Bytes of memory, of the process since it began."""
    seconds: float
    """An iteration after the first; the first is slower."""
    scoring: float = 0.0
    """Seconds of all evaluations and the report."""


def measured(config: Config, iterations: int) -> Probe:
    """Train for some iterations and keep nothing: what is wanted is what they cost; raises InputError as `train`."""
    assert isinstance(config, DataFree)
    times = [time.perf_counter()]
    with torch_settings(config), redirect_stdout(StringIO()):  # the run itself says how it is made
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
    each = [after - before for before, after in itertools.pairwise(times)]
    seconds = statistics.mean(each[1:] or each)
    scoring = _scoring(config, made.networks(made.trained), fabric.device)
    if torch.cuda.is_initialized():
        return Probe(torch.cuda.max_memory_reserved(), seconds, scoring)
    # Not getrusage, whose maximum a new process inherits from the one that started it.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return Probe(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), seconds, scoring)


def _scoring(config: Config, networks: Mapping[str, nn.Module], device: torch.device) -> float:
    """Seconds that a run's evaluations take: of the student on the way, and of both networks for the report."""
    if config.evaluation is None:
        return 0.0
    dataset, every = evaluation_dataset(config, config.evaluation), config.evaluation.every
    passes = {"teacher": 1, "student": 2 + ((config.iterations - 1) // every if every else 0)}
    shape, seconds = tuple(dataset[0]["image"].shape), 0.0
    for role, network in networks.items():
        score = partial(predict, network.eval(), size=shape[1:], mode=config.evaluation)
        seconds += passes[role] * measure_latency(score, shape, device=device, seconds=0).fastest / 1000
    return seconds * len(dataset)


@dataclass(frozen=True)
class Price:
    """What a data-free run takes on this machine."""

    seconds: float
    """Of what its lengths decide: the game, and the generator that learns before a student is cut."""
    choosing: float
    """Seconds in which a student is cut by images."""
    scoring: float
    peak: int
    """Bytes of memory."""

    def __str__(self) -> str:
        score = f", and {self.scoring / 60:.1f} to score" if self.scoring else ""
        minutes = (self.seconds + self.choosing) / 60
        return f"about {minutes:.1f} minutes of training{score}; {self.peak / 2**30:.1f} GiB of memory"

    def factor(self, seconds: float) -> float:
        """How many times as long the run is to be, to take so many seconds; fewer images decide a shorter one's cut."""
        left = seconds - self.scoring
        short = left / (self.seconds + self.choosing)
        return max(0.01, short if short < 1 else (left - self.choosing) / self.seconds)


def price(config: Config) -> Price:
    """What the run will take, from three iterations."""
    if not isinstance(config, DataFree):
        raise InputError(f"only data-free runs are timed beforehand, and method is {config.method}.")
    first = measured(config, ITERATIONS)
    each, remembered = first.seconds, 0.0
    steps, replay = student_steps(config), config.replay
    if replay is not None and len({again for _, again in steps}) > 1:
        more = dataclasses.replace(replay, steps=replay.steps + MORE, final_steps=None)
        longer = dataclasses.replace(config, replay=more, evaluation=None)  # type: ignore[call-arg]
        remembered = max(0.0, measured(longer, ITERATIONS).seconds - each) / MORE
        each -= remembered * replay.steps
    seconds = sum(each + remembered * again for _, again in steps)
    choosing = 0.0
    if config.cuts and config.student is not None and config.student.options.needs_images:
        options = config.student.options
        seconds += first.seconds / 2 * options.rehearsal
        choosing = first.seconds / 2 * PASSES * options.images / config.batch_size
    return Price(seconds, choosing, first.scoring, first.peak)


def with_minutes(config: Config, minutes: float, begun: Config | None = None) -> Config:
    """The config with the lengths that take about so many minutes here, measuring and scoring included; those of a run
    that goes on. Raises InputError as `price`."""
    if not minutes > 0:
        raise InputError(f"--minutes is {minutes:g}; more than 0 is needed.")
    if begun is not None:
        return scaled(config, begun.iterations / config.iterations)
    began = time.perf_counter()
    return scaled(config, price(config).factor(60 * minutes - (time.perf_counter() - began)))  # priced, then asked


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
        least = min(config.batch_size, values["student"]["images"])
        values["student"]["images"] = max(least, round(values["student"]["images"] * min(1.0, factor)))
    return parse_config(values)


def _times(values: dict[str, Any], names: tuple[str, ...], factor: float) -> None:
    for name in names:
        if values.get(name):
            values[name] = max(1, round(values[name] * factor))


def with_largest_batch(config: Config, begun: Config | None = None) -> Config:
    """The config with the largest even `batch_size` that memory holds; that of a run that goes on.

    A line is drawn through the peaks of two batches. On a GPU the choice is tried, too, and lowered until it fits.
    Raises InputError: not a data-free method; several processes, which would measure each other; nothing fits.
    """
    if begun is not None:
        return _with_batch(config, begun.batch_size)
    if not isinstance(config, DataFree):
        raise InputError(f"--auto-batch is for data-free methods, and method is {config.method}. Set batch_size.")
    if config.devices * config.num_nodes > 1:
        raise InputError("--auto-batch works with one process. Find the batch with --devices 1, then set batch_size.")
    cuda = config.device != "cpu" and torch.cuda.is_available()
    budget = SHARE * (torch.cuda.mem_get_info()[0] if cuda else free_memory())
    generator: Any = getattr(config, "generator", None)
    least = max(2, getattr(generator and generator.options, "sub_generators", 1))
    first, second = peak_memory(config, least), peak_memory(config, least + 8)
    room = f"{budget / 2**30:.1f} GiB"
    if first is None or second is None or first > budget:
        raise InputError(f"--auto-batch: batches of {least} and {least + 8} do not fit into {room}. Lower image_size.")
    batch = int(least + (budget - first) / max(1.0, (second - first) / 8)) // 2 * 2
    batch = max(least, batch if config.replay is None else min(batch, config.replay.size))  # more are not remembered
    while cuda and batch > least + 8 and peak_memory(config, batch) is None:
        batch = batch * 9 // 10 // 2 * 2
    say(f"auto-batch: batch_size {batch}, for {room}")
    return _with_batch(config, batch)


def peak_memory(config: Config, batch: int) -> int | None:
    """Bytes at the peak of the dry run with this batch, in a process of its own; None if they are not there."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measured, _with_batch(config, batch, evaluation=None), ITERATIONS).result().peak
        except (BrokenProcessPool, torch.OutOfMemoryError):
            return None


def free_memory() -> int:
    """Bytes that this machine, or the control group of this process, can still give."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    with suppress(OSError, ValueError):  # no control group, or "max"
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text("utf-8")) for name in ("max", "current"))
        return min(free, limit - used)
    return free


def _with_batch(config: Config, batch: int, **changes: None) -> Config:
    return parse_config(plain(config) | {"batch_size": batch, **changes})


def describe(config: Config) -> str:
    """The resolved config as YAML, and the cost of each network and of the run as comments: `--dry-run`."""
    experiment = build_experiment(without_rehearsal(config))
    lines = [dump_config(config), "# cost at {}x{}, one image, forward:\n".format(*config.image_size)]
    for role, network in experiment.networks(experiment.trained).items():
        flops = count_flops(network, config.image_size)
        lines.append(f"# {role}: {count_parameters(network):,} parameters, {flops / 1e9:.3f} GFLOPs\n")
    if config.data_free:
        lines.append(f"# {price(config)}\n")
    return "".join(lines)
