"""How the game scales over processes: N of them, each on a core of its own, against one. See --help."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from throughput.measure import time_steps
from throughput.pairs import PAIRS, STUDENT_STEPS, build_pair
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dfad_seg.common.files import write_json
from dfad_seg.distill import generator_step, student_step
from dfad_seg.objectives import GeneratorObjective, weighted_discrepancy
from dfad_seg.segmentors import freeze, optimize_for_distillation


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Time the steps in one process on one core, then in N processes on N cores that average their "
        "gradients (gloo). Every process has the same batch, so that perfect scaling is the same time."
    )
    parser.add_argument("--pair", choices=sorted(PAIRS), default="small")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="images per step and process (default 8)")
    parser.add_argument("--size", type=int, default=128, metavar="N", help="images of NxN pixels (default 128)")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="turns of either (default 3)")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    arguments = parser.parse_args(argv)
    cores = sorted(os.sched_getaffinity(0))
    if arguments.processes > len(cores):
        parser.error(f"{arguments.processes} processes need as many cores, and {len(cores)} may be used here")
    record = measure(arguments, cores)
    print(json.dumps(record, indent=2))
    if arguments.json:
        write_json(arguments.json, record)
    return 0


def measure(arguments: argparse.Namespace, cores: list[int]) -> dict[str, Any]:
    """Seconds per iteration of one process and of N, in turns, and the efficiency t(1) / t(N)."""
    seconds: dict[int, list[float]] = {1: [], arguments.processes: []}
    for _ in range(arguments.repeats):
        for world in seconds:
            results = mp.get_context("spawn").SimpleQueue()
            mp.spawn(work, args=(world, cores, free_port(), vars(arguments), results), nprocs=world)
            seconds[world].append(max(results.get() for _ in range(world)))
    _, student, generator = build_pair(arguments.pair, (arguments.size, arguments.size))
    one, many = (median(of) for of in seconds.values())
    return {
        **{name: getattr(arguments, name) for name in ("pair", "batch", "size", "processes", "repeats")},
        "iteration_s": {str(world): of for world, of in seconds.items()},
        "efficiency": one / many,
        "gradient_bytes": {"student": gradient_bytes(student), "generator": gradient_bytes(generator)},
    }


def work(rank: int, world: int, cores: list[int], port: int, options: dict[str, Any], results: Any) -> None:
    """One process: the time of an iteration, which is k student steps and one generator step."""
    os.sched_setaffinity(0, {cores[rank]})
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    size = (options["size"], options["size"])
    teacher, student, generator = (n.to(memory_format=torch.channels_last) for n in build_pair(options["pair"], size))
    fast_teacher = optimize_for_distillation(freeze(teacher), size, trainable=False)
    optimize_for_distillation(student, size, trainable=True)
    trained: dict[str, nn.Module] = {"student": student, "generator": generator}
    if world > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
        trained = {name: DistributedDataParallel(network) for name, network in trained.items()}
    student_optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, fused=True)
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3, fused=True)
    loss = weighted_discrepancy({"mae": 1.0})
    objective = GeneratorObjective(weighted_discrepancy({"log_mae": 1.0}))
    rng = torch.Generator().manual_seed(rank)

    def iteration() -> None:
        for _ in range(STUDENT_STEPS):
            with torch.no_grad():
                images = generator(generator.sample(options["batch"], size, rng))
            student_step(
                student=trained["student"],
                teacher=fast_teacher,
                images=images,
                optimizer=student_optimizer,
                loss_fn=loss,
            )
        generator_step(
            generator=trained["generator"],
            student=student,
            teacher=fast_teacher,
            latents=generator.sample(options["batch"], size, rng),
            optimizer=generator_optimizer,
            objective=objective,
        )

    iteration()  # the first is slower
    times = time_steps(iteration, steps=2, device=torch.device("cpu"))
    results.put(min(times["wall_s"]))
    if world > 1:
        dist.destroy_process_group()


def gradient_bytes(network: nn.Module) -> int:
    """What one all-reduce of a network's gradients carries: float32."""
    return 4 * sum(parameter.numel() for parameter in network.parameters())


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
