"""How long networks take and how large their files are: one table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

Answer = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Row:
    """One network in one runtime.

    Attributes:
        model: teacher or student.
        runtime: PyTorch or ONNX Runtime.
        precision: fp32, bf16 or int8.
        parameters: how many.
        megabytes: of the weights in this precision (PyTorch), or of the file (ONNX).
        milliseconds: median over single images.
        fastest: of them, milliseconds.
        miou: on a data set if one was given, in [0, 1].
    """

    model: str
    runtime: str
    precision: str
    parameters: int
    megabytes: float
    milliseconds: float
    fastest: float
    miou: float | None = None


def measure(answer: Answer, size: tuple[int, int], *, repeats: int = 20, seconds: float = 20.0) -> tuple[float, float]:
    """(median, fastest) milliseconds for one image of `size` (H, W), after warm-up.

    Args:
        answer: a network; it is called without gradients.
        repeats: timed calls, at most; three at least.
        seconds: after which no further call begins.
    """
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    spent: list[float] = []
    with torch.inference_mode():
        for _ in range(2):
            answer(images)
        end = time.monotonic() + seconds
        while len(spent) < 3 or (len(spent) < repeats and time.monotonic() < end):
            start = time.perf_counter()
            answer(images)
            spent.append(1000 * (time.perf_counter() - start))
    return statistics.median(spent), min(spent)


def in_bf16(network: nn.Module) -> Answer:
    """A network under bf16 autocast on the CPU."""

    def answer(images: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return network(images)

    return answer


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    with_miou = any(row.miou is not None for row in rows)
    lines = [
        "| model | runtime | precision | parameters | MB | ms per image | fastest |" + (" mIoU |" if with_miou else "")
    ]
    lines.append("|---|---|---|---:|---:|---:|---:|" + ("---:|" if with_miou else ""))
    for row in rows:
        miou = "" if not with_miou else (" – |" if row.miou is None else f" {100 * row.miou:.2f} |")
        lines.append(
            f"| {row.model} | {row.runtime} | {row.precision} | {row.parameters / 1e6:.2f} M | {row.megabytes:.2f} "
            f"| {row.milliseconds:.1f} | {row.fastest:.1f} |{miou}"
        )
    return "\n".join(lines)


def record(rows: Sequence[Row], size: tuple[int, int]) -> dict[str, Any]:
    """Plain values for a JSON file."""
    return {
        "size": list(size),
        "batch": 1,
        "threads": torch.get_num_threads(),
        "rows": [asdict(row) for row in rows],
    }
