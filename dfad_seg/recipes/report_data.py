"""What the report of a run needs beside the files that training writes anyway: costs, the teacher's score, examples.

All of it goes into `report.json` of the run directory, from which `dfad_seg.report` reads.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dfad_seg.common.files import write_json
from dfad_seg.config import Config
from dfad_seg.datasets import MetaInfo
from dfad_seg.evaluation import ImageCounts, SegmentationMetrics, evaluate_miou
from dfad_seg.evaluation.evaluator import evaluating
from dfad_seg.evaluation.pictures import write_comparison_picture
from dfad_seg.recipes.build import evaluation_dataset, inference_of
from dfad_seg.recipes.samples import EvaluationSamples, evaluation_loader
from dfad_seg.report import write_report
from dfad_seg.report.files import REPORT_DATA
from dfad_seg.runs import ProgressReport
from dfad_seg.segmentors import Segmentor, count_flops, count_parameters, state_hash

LATENCY_SECONDS = 2.0
LATENCY_RUNS = 20


def refresh_report(run: Path) -> None:
    """Write the report anew from the run's files. Whatever goes wrong is a warning: no run fails for its report."""
    _forgiving("the report could not be written", lambda: write_report(run))


def start_report(run: Path, config: Config, networks: dict[str, nn.Module], device: str) -> None:
    """Note what the networks (by role) are and cost, unless an earlier part of the run has done so; never raises."""

    def note() -> None:
        data = _read(run)
        if "networks" in data:
            return
        size = _evaluation_size(config)
        data |= {"size": list(size), "device": device}
        data["networks"] = {role: _cost(network, size) for role, network in networks.items()}
        write_json(run / REPORT_DATA, data)

    _forgiving("what the networks cost is not in the report", note)
    refresh_report(run)


@dataclass(frozen=True)
class Finished:
    """A run that has come to its end, for its report.

    Attributes:
        path: the run directory.
        config: the experiment; its `report` section says what is wanted.
        info: classes and colours.
        networks: by role; the trained one is that which is kept. They are moved to the device.
        device: where to compute.
        autocast: of forward passes, as in the evaluations on the way; None: fp32.
    """

    path: Path
    config: Config
    info: MetaInfo
    networks: dict[str, nn.Module]
    device: torch.device
    autocast: Callable[[], AbstractContextManager] | None = None


def finish_report(finished: Finished) -> None:
    """Measure, score and draw what needs the trained network, and write the report; never raises."""
    section = finished.config.report
    for network in finished.networks.values():
        network.to(finished.device)
    if section.latency:
        _forgiving("the latency is not in the report", lambda: _add_latency(finished))
    if finished.config.evaluation is not None:
        if section.teacher and "teacher" in finished.networks and finished.config.trained_role == "student":
            _forgiving("the teacher's score is not in the report", lambda: _add_teacher_scores(finished))
        if section.examples:
            _forgiving("the best and worst images are not in the report", lambda: _add_examples(finished))
    refresh_report(finished.path)


def _forgiving(what: str, act: Callable[[], object]) -> None:
    try:
        act()
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"warning: {what}: {reason}", file=sys.stderr, flush=True)


def _read(run: Path) -> dict[str, Any]:
    try:
        data = json.loads((run / REPORT_DATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _evaluation_size(config: Config) -> tuple[int, int]:
    """That of the first evaluation image as the networks see it; without evaluation that of the training images."""
    if config.evaluation is None:
        return config.image_size
    if config.evaluation.crop_size is not None:
        return config.evaluation.crop_size
    height, width = EvaluationSamples(evaluation_dataset(config, config.evaluation))[0]["image"].shape[:2]
    return height, width


def _cost(network: nn.Module, size: tuple[int, int]) -> dict[str, Any]:
    return {"name": _name(network), "parameters": count_parameters(network), "macs": count_flops(network, size) // 2}


def _name(network: nn.Module) -> str:
    spec = network.spec if isinstance(network, Segmentor) else None
    names = [] if spec is None else [spec.get(key) for key in ("arch", "encoder_name", "factory")]
    inner = network.network if isinstance(network, Segmentor) else network
    return " ".join(str(name) for name in names if name) or type(inner).__name__


def _add_latency(finished: Finished) -> None:
    data = _read(finished.path)
    height, width = data.get("size") or finished.config.image_size
    for role, network in finished.networks.items():
        cost = data.setdefault("networks", {}).setdefault(role, {})
        cost["latency_s"], cost["latency_runs"] = latency(network, (height, width), finished.device)
    write_json(finished.path / REPORT_DATA, data)


def latency(network: nn.Module, size: tuple[int, int], device: torch.device) -> tuple[float, int]:
    """Seconds of one image's forward pass in fp32: the median after a first one, and of how many.

    At most 20 passes, and no further one once two seconds are over; one at least.
    """
    image = torch.full((1, 3, *size), 0.5, device=device)
    seconds: list[float] = []
    with evaluating(network), torch.inference_mode():
        began = time.perf_counter()
        network(image)
        while not seconds or (len(seconds) < LATENCY_RUNS and time.perf_counter() - began < LATENCY_SECONDS):
            _wait(device)
            start = time.perf_counter()
            network(image)
            _wait(device)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), len(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _add_teacher_scores(finished: Finished) -> None:
    """The teacher's metrics, unless those that are kept are of the same weights, data and way of evaluating."""
    config, data, teacher = finished.config, _read(finished.path), finished.networks["teacher"]
    assert config.dataset is not None and config.evaluation is not None
    of = {
        "state_sha256": state_hash(teacher),
        "dataset": config.dataset.model_dump(mode="json", exclude_none=True),
        "evaluation": config.evaluation.model_dump(mode="json", exclude={"every", "batch_size", "num_workers"}),
    }
    kept = data.get("teacher_scores")
    if isinstance(kept, dict) and kept.get("of") == of:
        return
    metrics, _ = _score(finished, teacher, "report: scoring the teacher")
    write_json(finished.path / REPORT_DATA, data | {"teacher_scores": {"of": of, "metrics": metrics.to_dict()}})


def _score(finished: Finished, network: nn.Module, title: str) -> tuple[SegmentationMetrics, dict[str, float]]:
    """The metrics over the evaluation split, and the mIoU of each image, by name."""
    config, info = finished.config, finished.info
    section = config.evaluation
    assert section is not None
    dataset = evaluation_dataset(config, section)
    counts = ImageCounts(info.num_classes, info.ignore_index)
    with ProgressReport(title, len(dataset), unit="image") as progress:
        metrics = evaluate_miou(
            network,
            evaluation_loader(EvaluationSamples(dataset), section),
            num_classes=info.num_classes,
            classes=info.classes,
            ignore_index=info.ignore_index,
            device=finished.device,
            autocast=finished.autocast,
            inference=inference_of(section),
            meters=[counts],
            progress=progress.advance,
        )
    scores = {name: image_miou(image) for name, image in zip(counts.names, counts.compute(), strict=True)}
    return metrics, {name: score for name, score in scores.items() if score is not None}


def image_miou(counts: np.ndarray) -> float | None:
    """The mIoU of one image from its (3, C) pixels of intersection, truth and prediction.

    Mean over the classes that occur in its truth or its prediction; None where nothing is evaluated.
    """
    hits, truth, predicted = counts
    union = truth + predicted - hits
    return float((hits[union > 0] / union[union > 0]).mean()) if truth.sum() else None


def best_and_worst(scores: dict[str, float], count: int) -> list[tuple[str, str]]:
    """(kind, name): the worst images first, then the best; none twice, `count` of each at most."""
    order = sorted(scores, key=lambda name: (scores[name], name))
    half = min(count, (len(order) + 1) // 2)
    best = order[half:][-count:][::-1]
    return [("worst", name) for name in order[:half]] + [("best", name) for name in best]


def _add_examples(finished: Finished) -> None:
    config, info = finished.config, finished.info
    assert config.evaluation is not None
    role = config.trained_role
    _, scores = _score(finished, finished.networks[role], "report: best and worst images")
    dataset = evaluation_dataset(config, config.evaluation)
    places = {name: place for place, name in enumerate(dataset.names)}
    rows = []
    for number, (kind, name) in enumerate(best_and_worst(scores, config.report.examples), start=1):
        sample = EvaluationSamples(dataset)[places[name]]
        answers: dict[str, Tensor] = {}
        row: dict[str, Any] = {"kind": kind, "name": name, "miou": scores[name]}
        for who, network in sorted(finished.networks.items(), reverse=True):  # the teacher before the student
            counts = ImageCounts(info.num_classes, info.ignore_index)
            answers[who] = _answer(finished, network, sample, counts)
            if who != role:
                row[f"{who}_miou"] = image_miou(counts.compute()[0])
        file = f"pictures/examples/{number:02d}_{kind}.png"
        write_comparison_picture(
            finished.path / file,
            sample["image"].numpy(),
            sample["mask"],
            answers,
            classes=info.classes,
            palette=info.palette,
            ignore_index=info.ignore_index,
        )
        rows.append(row | {"file": file})
    write_json(finished.path / REPORT_DATA, _read(finished.path) | {"examples": rows})


def _answer(finished: Finished, network: nn.Module, sample: dict[str, Any], counts: ImageCounts) -> Tensor:
    """The labels (H, W) that a network gives one image, as in the evaluation; counted as well."""
    info = finished.info
    found: list[Tensor] = []
    assert finished.config.evaluation is not None
    evaluate_miou(
        network,
        [{"image": sample["image"][None], "mask": sample["mask"][None], "name": [sample["name"]]}],
        num_classes=info.num_classes,
        ignore_index=info.ignore_index,
        device=finished.device,
        autocast=finished.autocast,
        inference=inference_of(finished.config.evaluation),
        meters=[counts],
        on_batch=lambda batch, labels: found.extend(label.cpu() for label in labels),
    )
    return found[0]
