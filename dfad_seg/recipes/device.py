"""Where an experiment runs: device, precision, processes, and torch's process-wide settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators import CUDAAccelerator
from lightning_fabric.utilities.rank_zero import rank_zero_only

from dfad_seg.common.errors import InputError
from dfad_seg.common.speed import denormals_as_zero
from dfad_seg.config import Config
from dfad_seg.recipes.precision import resolve_precision


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
    """Device, precision and processes of an experiment.

    Args:
        decided: the precision with which a run began that is resumed.
    """
    if config.device == "cuda" and not CUDAAccelerator.is_available():
        raise InputError("device is cuda, and no CUDA device can be used here. Use --device cpu or auto.")
    cuda = config.device != "cpu" and CUDAAccelerator.is_available()
    if cuda and config.devices > torch.cuda.device_count():
        raise InputError(
            f"devices is {config.devices}, and this machine has {torch.cuda.device_count()}. Lower --devices."
        )
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy="ddp" if config.devices * config.num_nodes > 1 else "auto",
        precision=resolve_precision(config, cuda=cuda, decided=decided),  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def say(text: str) -> None:
    """Print a line for the user, once for all processes."""
    rank_zero_only(print)(text, file=sys.stderr if text.startswith("note: ") else sys.stdout, flush=True)
