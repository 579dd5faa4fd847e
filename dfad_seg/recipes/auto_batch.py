"""`--auto-batch`: the largest batch that fits into memory."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only

from dfad_seg.common.errors import InputError, Interrupted
from dfad_seg.common.values import plain
from dfad_seg.config import Config, load_config, parse_config
from dfad_seg.distill import DataFree, Hooks, distil
from dfad_seg.recipes.build import build_experiment
from dfad_seg.recipes.cutting import without_rehearsal
from dfad_seg.recipes.device import launched, torch_settings
from dfad_seg.recipes.transfer import transfer_images

PROBES = (4, 12)
"""Batches that are tried (or larger ones, if a config needs more); memory grows linearly with the batch."""
SHARE = 0.85
"""Of the free memory is used: the line is not exact, and evaluation needs some, too."""


def with_largest_batch(config: Config, begun: Path | None = None) -> Config:
    """The config with the largest even `batch_size` whose iteration fits, and a message; that of `begun`, if that is a
    run that goes on.

    Two small batches are tried, each for one iteration in a process of its own, and a line is drawn through their
    peaks: the resident memory of the process on a CPU, the allocator's on a GPU. On a GPU the chosen batch is tried as
    well, and lowered while it does not fit.

    Raises:
        InputError: not a data-free method; several processes, which would measure each other; even the smallest batch
            does not fit; the networks cannot be built.
    """
    if begun is not None and (begun / "config.yaml").exists():
        return replace(config, batch_size=load_config(begun / "config.yaml").batch_size)
    if not isinstance(config, DataFree):
        raise InputError(f"--auto-batch is for data-free methods, and method is {config.method}. Set batch_size.")
    if config.devices * config.num_nodes > 1:
        raise InputError("--auto-batch works with one process. Find the batch with --devices 1, then set batch_size.")
    cuda = config.device != "cpu" and torch.cuda.is_available()
    budget = SHARE * (torch.cuda.mem_get_info()[0] if cuda else free_memory())
    parts: Any = getattr(config, "generator", None)
    least = max(2, getattr(parts and parts.options, "sub_generators", 1))
    more = max(0, least - PROBES[0])
    probes = (PROBES[0] + more, PROBES[1] + more)
    first, second = (peak_memory(config, batch) for batch in probes)
    if first is None or second is None:
        raise InputError(f"--auto-batch: not even a batch of {probes[1]} fits into memory.")
    batch = largest_batch(probes, (first, second), budget, least=least)
    if config.replay is not None:
        batch = min(batch, config.replay.size)  # more could not be remembered
    while cuda and peak_memory(config, batch) is None and batch > probes[1]:
        batch = batch * 9 // 10 // 2 * 2
    gib = 2**30
    rank_zero_only(print)(f"auto-batch: batch_size {batch}, for {budget / gib:.1f} GiB")
    return replace(config, batch_size=batch)


def largest_batch(probes: tuple[int, int], peaks: tuple[int, int], budget: float, *, least: int = 2) -> int:
    """The largest even batch below `budget` bytes on the line through the peaks of two probes.

    Raises:
        InputError: it is smaller than `least`.
    """
    small, large = probes
    per_image = max(1.0, (peaks[1] - peaks[0]) / (large - small))
    fixed = peaks[0] - per_image * small
    batch = int((budget - fixed) / per_image) // 2 * 2
    if batch < least:
        raise InputError(
            f"--auto-batch: a batch of {least} needs {(fixed + least * per_image) / 2**30:.1f} GiB, "
            f"and {budget / 2**30:.1f} GiB may be used. Take a smaller image_size."
        )
    return batch


def free_memory() -> int:
    """Bytes that this machine, or the control group of this process, can still give."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used)


class Probe(NamedTuple):
    """What some iterations took."""

    peak: int
    """Bytes of memory, of the process since it began."""
    seconds: float
    """The fastest iteration; of a single one, all of it."""


def peak_memory(config: Config, batch: int) -> int | None:
    """Bytes at the peak of one iteration with this batch, measured in a fresh process; None if they are not there.

    Raises:
        InputError: what is wrong with the config's networks.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_probe, args=(plain(replace(config, batch_size=batch)), sender))
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:  # killed: on a CPU that is how a process learns that the memory is used up
        answer = None
    finally:
        process.join()
    if isinstance(answer, str):
        raise InputError(answer)
    return answer


def _run_probe(values: dict[str, Any], sender: Connection) -> None:
    try:
        sender.send(measured(parse_config(values), 1).peak)
    except InputError as error:
        sender.send(str(error))
    except torch.OutOfMemoryError:
        sender.send(None)


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
        try:
            distil(
                made.fast_teacher(),
                made.trained,
                made.generator,
                config,
                losses=made.losses,
                transfer=transfer_images(config),
                fabric=fabric,
                hooks=hooks,
            )
        except Interrupted:
            pass
    seconds = min(after - before for before, after in itertools.pairwise(times))
    if torch.cuda.is_initialized():
        return Probe(torch.cuda.max_memory_reserved(), seconds)
    # Not getrusage, whose maximum a new process inherits from the one that started it.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return Probe(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), seconds)
