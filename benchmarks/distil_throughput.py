"""How fast the game runs: the plain loop of the paper against ours, on this machine. See --help."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from throughput import report
from throughput.measure import flops_per_image, matmul_rate, peak_memory, resident_memory, time_steps, warm_up
from throughput.ours import ADDED, BF16, CHANGES, COMPILED, GRAPHED, our_steps
from throughput.pairs import PAIRS
from throughput.plain import plain_steps
from throughput.recipe import recipe_iteration

from dfad_seg.common.environment import cpu_name
from dfad_seg.common.files import write_json
from dfad_seg.recipes.device import fast_in_bf16


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Time student and generator steps of (a) the paper's loop in plain fp32 PyTorch and (b) ours, with "
        "the same networks, batch and image size. Every run has a process of its own, and the two take turns."
    )
    parser.add_argument("--pair", choices=sorted(PAIRS), default="small")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="images per step (default 8)")
    parser.add_argument("--size", type=int, default=128, metavar="N", help="images of NxN pixels (default 128)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="processes per variant (default 3)")
    parser.add_argument("--steps", type=int, default=3, metavar="N", help="timed steps of either kind per process")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "--rows",
        action="store_true",
        help="also with torch.compile; on a CPU without each speed-up in turn, on a GPU with CUDA graphs",
    )
    parser.add_argument("--recipe", action="store_true", help="also an iteration of the recommended recipe")
    parser.add_argument(
        "--lock",
        metavar="FILE",
        help="on a GPU: start all processes at once, and let those that name this file measure in turns",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--render",
        nargs="+",
        metavar="FILE",
        help="time nothing; put the tables of JSON files (the last ones) into a Markdown file (the first), between "
        "<!-- begin throughput --> and <!-- end throughput -->",
    )
    parser.add_argument("--worker", metavar="VARIANT", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if min(arguments.batch, arguments.repeats, arguments.steps) < 1 or arguments.batch < 2:
        parser.error("--batch must be at least 2, --repeats and --steps at least 1")
    if arguments.size < 16 or arguments.size % 16:
        parser.error("--size must be a multiple of 16")
    if arguments.render:
        page, *files = arguments.render
        records = [json.loads(Path(file).read_text(encoding="utf-8")) for file in files]
        report.put_into(Path(page), "throughput", "\n".join(report.to_markdown(record) for record in records))
        return 0
    if arguments.device == "auto":
        arguments.device = "cuda" if torch.cuda.is_available() else "cpu"
    if arguments.worker is not None:
        print(json.dumps(measure(arguments.worker, arguments)))
        return 0
    record = run_all(arguments)
    print(report.to_markdown(record), end="")
    if arguments.json:
        write_json(arguments.json, record)
    return 0


def measure(variant: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Times and memory of one variant, in this process: `plain`, or `ours` with the speed-ups after `-` left out."""
    device, size = torch.device(arguments.device), (arguments.size, arguments.size)
    # Many may build and compile at once; who measures is alone.
    with open(arguments.lock or os.devnull, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if variant.startswith("recipe"):
            fcntl.flock(lock, fcntl.LOCK_EX)
            bf16 = variant.endswith(BF16)
            return recipe_iteration(arguments.batch, size, device, bf16=bf16, iterations=arguments.steps)
        if variant == "plain":
            steps = plain_steps(arguments.pair, arguments.batch, size, device)
        else:
            off = frozenset(name for name in variant.split("-")[1:])
            steps = our_steps(arguments.pair, arguments.batch, size, device, off)
        built = resident_memory()
        for step in steps:
            warm_up(step, 2, device)
        fcntl.flock(lock, fcntl.LOCK_EX)
        times = [time_steps(step, steps=arguments.steps, device=device) for step in steps]
        return {
            "student": times[0],
            "generator": times[1],
            "built_memory_bytes": built,
            "peak_memory_bytes": peak_memory(device),
        }


def run_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """All variants in turns, each in a process of its own, and what follows from their times."""
    device, batch = torch.device(arguments.device), arguments.batch
    bf16, why = fast_in_bf16(cuda=device.type == "cuda")
    gpu = device.type == "cuda"
    known = {**(COMPILED if gpu else CHANGES), **(GRAPHED if gpu else {})}
    names = [name for name in known if bf16 or BF16 not in name] if arguments.rows else []
    variants = ["plain", "ours", *([f"ours-{BF16}"] if bf16 else []), *(f"ours-{name}" for name in names)]
    if arguments.recipe:
        variants += ["recipe", *([f"recipe-{BF16}"] if bf16 else [])]
    runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
    with ThreadPoolExecutor(len(variants) * arguments.repeats if arguments.lock else 1) as pool:
        turns = [variant for _ in range(arguments.repeats) for variant in variants]
        for variant, result in zip(turns, pool.map(lambda variant: run_worker(variant, arguments), turns), strict=True):
            print(f"{variant}: {'done' if result else 'FAILED, left out'}", file=sys.stderr, flush=True)
            runs[variant] += [result] if result else []
    names = [name for name in names if runs[f"ours-{name}"]]
    runs = {variant: of for variant, of in runs.items() if of}
    with open(arguments.lock or os.devnull, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rates = {"fp32": matmul_rate(torch.float32, device)}
        if bf16:  # elsewhere it takes minutes
            rates["bf16"] = matmul_rate(torch.bfloat16, device)
    flops = flops_per_image(arguments.pair, (arguments.size, arguments.size))
    recipes = {variant: runs.pop(variant) for variant in variants if variant.startswith("recipe") and variant in runs}
    summaries = {variant: report.summarise(of, batch) for variant, of in runs.items()}
    plain, ours = summaries["plain"], summaries["ours"]
    against = {"flops": flops, "rates": rates, "batch": batch}
    in_bf16 = None
    if f"ours-{BF16}" in summaries:
        found = summaries[f"ours-{BF16}"]
        in_bf16 = {**found, **report.compare(plain, found, **against)}
    return {
        **{name: getattr(arguments, name) for name in ("pair", "batch", "size", "repeats", "steps")},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "bf16": why,
        **report.compare(plain, ours, **against),
        "images_per_s_ratio_bf16": None if in_bf16 is None else in_bf16["images_per_s_ratio"],
        **({} if in_bf16 is None else {"fraction_of_bf16_matmul": in_bf16["fraction_of_bf16_matmul"]}),
        "plain_fractions": report.compare(plain, plain, **against),
        "flops_per_image": flops,
        "matmul_flops_per_s": rates,
        "plain": plain,
        "ours": ours,
        "ours_bf16": in_bf16,
        "recipe_iteration_s": {name: min(min(run["iteration_s"]) for run in of) for name, of in recipes.items()},
        "rows": [
            {
                "changed": name,
                "what": known[name],
                "added": ADDED >= set(name.split("-")),
                **summaries[f"ours-{name}"],
            }
            for name in names
        ],
        "runs": runs,
    }


def run_worker(variant: str, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Measure one variant in a fresh process, which inherits the cores and the number of threads. None: it failed."""
    options = {name: getattr(arguments, name) for name in ("pair", "batch", "size", "steps", "device", "lock")}
    command = [sys.executable, os.path.abspath(__file__), "--worker", variant]
    command += [text for name, value in options.items() if value for text in (f"--{name}", str(value))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return None
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name()


if __name__ == "__main__":
    sys.exit(main())
