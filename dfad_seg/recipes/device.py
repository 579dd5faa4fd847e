"""The machine that an experiment runs on: device, precision, processes, torch's settings, and its faults."""

import functools
import os
import re
import timeit
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from lightning_fabric.utilities.rank_zero import rank_zero_only

from dfad_seg.common.errors import FILES_ADVICE, OUT_OF_MEMORY, InputError, machine_fault
from dfad_seg.common.speed import denormals_as_zero
from dfad_seg.config import Config
from dfad_seg.evaluation import Inference

WORTHWHILE = 1.2
"""bf16 is taken if it is faster than fp32 by this factor: the casts around it cost something too."""
_TOO_MANY_FILES = re.compile(r"Too many open files|received 0 items of ancdata")
_AMOUNT = re.compile(r"[Tt]ried to allocate ([\d.]+) ?([KMGT]?i?[Bb](?:ytes)?)")


@contextmanager
def torch_settings(config: Config) -> Iterator[None]:
    """Process-wide settings of torch, undone afterwards."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for, before CUDA starts
        torch.use_deterministic_algorithms(True)
    try:
        with denormals_as_zero():
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)


def launched(config: Config, decided: str | None = None) -> Fabric:
    """Device, precision and processes of an experiment; `decided` is the precision of a run that is resumed."""
    cuda = device_of(config.device).type == "cuda"
    most = torch.cuda.device_count() if cuda else max(8, os.cpu_count() or 1)
    if config.devices > most:
        raise InputError(f"devices is {config.devices}, and this machine has {most}. Lower --devices.")
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy="ddp" if config.devices * config.num_nodes > 1 else "auto",
        precision=resolve_precision(config, cuda=cuda, decided=decided),  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def device_of(name: str) -> torch.device:
    """auto, cpu or cuda; InputError where it is not there."""
    cuda = torch.cuda.is_available()
    if name == "cuda" and not cuda:
        raise InputError("device is cuda, and no CUDA device can be used here. Use --device cpu or auto.")
    return torch.device("cuda" if cuda and name != "cpu" else "cpu")


def say(text: str) -> None:
    """Print a line for the user, once for all processes."""
    rank_zero_only(print)(text, flush=True)


def resolve_precision(config: Config, *, cuda: bool, decided: str | None = None) -> str:
    """`config.precision`, or for `auto` what a resumed run decided before, or what this machine is fast in."""
    if config.precision != "auto":
        return config.precision
    if decided is not None:
        return decided
    fast, why = fast_in_bf16(cuda=cuda, processes=config.devices * config.num_nodes)
    precision = "bf16-mixed" if fast else "32-true"
    say(f"precision auto: {precision}, {why}")
    return precision


def evaluation_mode(inference: Inference, device: torch.device) -> Inference:
    """The same with a precision instead of `auto`, which is printed with its reason."""
    if inference.precision != "auto":
        return inference
    fast, why = fast_in_bf16(cuda=device.type == "cuda")
    print(f"precision auto: {'bf16' if fast else 'fp32'}, {why}")
    return replace(inference, precision="bf16" if fast else "fp32")


def fast_in_bf16(*, cuda: bool, processes: int = 1) -> tuple[bool, str]:
    """Whether networks run faster in bf16 here, and why.

    A GPU takes bf16 if its hardware has it. A CPU is measured, once per process and for about a second, as a CPU may
    know bf16 instructions and still be slower with them. Several processes must decide alike, so they ask for AMX
    instead.
    """
    if cuda:
        return torch.cuda.is_bf16_supported(including_emulation=False), "as this GPU's hardware says"
    if processes > 1:
        return torch.cpu._is_amx_tile_supported(), "by whether this CPU has AMX"
    if not (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return False, "as this CPU has no instructions for bf16"
    gain = bf16_gain()
    return gain >= WORTHWHILE, f"bf16 autocast is {gain:.2f}x as fast as fp32 on this CPU"


@functools.cache
def bf16_gain() -> float:
    """How many times as fast as in fp32 a training step of a convolution runs under bf16 autocast on this CPU."""
    images = torch.randn(8, 128, 32, 32).to(memory_format=torch.channels_last)
    weight = torch.randn(128, 128, 3, 3).to(memory_format=torch.channels_last).requires_grad_()

    def step(enabled: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = F.conv2d(images, weight, padding=1).float().sum()
        torch.autograd.grad(loss, weight)

    def fastest(enabled: bool) -> float:
        return min(timeit.repeat(lambda: step(enabled), number=1, repeat=5))  # torch's timer looks for a compiler

    return fastest(False) / fastest(True)


@contextmanager
def explained(*, batch: str, advice: str, then: str = "") -> Iterator[None]:
    """Turn faults of the machine inside the block into an `InputError`: memory, disk, open files.

    Args:
        batch: what was being computed, for the message about memory, such as `batch_size 8 at 96x128`.
        advice: what needs less memory.
        then: what to do once the fault is mended.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        text, message = str(error), None
        if isinstance(error, OSError):
            message = machine_fault(error)
        elif isinstance(error, (MemoryError, torch.OutOfMemoryError)) or OUT_OF_MEMORY.search(text):
            amount = _AMOUNT.search(text)
            wanted = f", where {amount[1]} {amount[2]} more were needed" if amount else ""
            message = f"out of {'GPU memory' if 'CUDA' in text else 'memory'} with {batch}{wanted}. {advice}."
        elif _TOO_MANY_FILES.search(text):
            message = f"too many open files. {FILES_ADVICE}."
        if message is None:
            raise
        raise InputError(f"{message}{then}") from error
