"""What a run finds out for its summary and its report beside training: costs, scores, examples, its generator."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_fabric import Fabric
from torch import Tensor, nn

from dfad_seg.common.progress import ProgressReport
from dfad_seg.common.speed import measure_latency
from dfad_seg.common.values import plain
from dfad_seg.config import Config, GameConfig
from dfad_seg.datasets import MetaInfo
from dfad_seg.distill.judging import judge_average, judge_predictions, judge_records
from dfad_seg.evaluation import ImageCounts
from dfad_seg.evaluation.evaluator import evaluating
from dfad_seg.evaluation.pictures import write_comparison_picture
from dfad_seg.generators import ImageGenerator
from dfad_seg.recipes.build import Experiment, evaluation_dataset, scored
from dfad_seg.recipes.pictures import write_generator_sheet
from dfad_seg.recipes.quality import add_agreement, best_and_worst, held_out_images, image_miou, unlabelled_images
from dfad_seg.recipes.samples import EvaluationSamples, evaluation_loader
from dfad_seg.runs import Run, note_score, update_summary, write_report
from dfad_seg.runs.records import Cost, Example, Score, Weights
from dfad_seg.segmentors import Segmentor, count_flops, count_parameters, state_hash

LATENCY_SECONDS = 2.0
EXAMPLES = 3
"""Best and worst images to show, of each."""
UNLIKE_SCORES = {"every", "batch_size", "num_workers"}
"""Keys of an evaluation that do not change its scores."""


@dataclass(frozen=True)
class Finished:
    """A run that has come to its end, for its report; `networks` by role, the trained one as it is kept."""

    path: Path
    experiment: Experiment
    networks: dict[str, nn.Module]
    fabric: Fabric

    @property
    def config(self) -> Config:
        return self.experiment.config

    @property
    def info(self) -> MetaInfo:
        return self.experiment.info

    @property
    def last(self) -> nn.Module | None:
        """The trained network as it was after the last step, where its average is kept."""
        return self.experiment.trained if self.config.ema_decay else None

    @property
    def generator(self) -> ImageGenerator | None:
        """The trained one, if there is one."""
        return self.experiment.generator if isinstance(self.config, GameConfig) else None


def start_report(run: Path, config: Config, networks: dict[str, nn.Module], device: str) -> None:
    """Begin the run's summary with what the networks (by role) are and cost; an earlier part of a run has done so."""
    if Run(run).summary is None:
        role, split = config.trained_role, config.evaluation.split if config.evaluation else None
        selected: Weights = "ema" if config.ema_decay else "last"
        update_summary(run, role=role, iterations=config.iterations, selected=selected, split=split, device=device)

        def costs() -> None:
            size = _evaluation_size(config)
            update_summary(run, size=size, costs={role: _cost(network, size) for role, network in networks.items()})

        _forgiving("what the networks cost is not in the report", costs)
    refresh_report(run)


def refresh_report(run: str | Path) -> None:
    """Write the report anew from the run's files. Whatever goes wrong is a warning: no run fails for its report."""
    _forgiving("the report could not be written", lambda: report_run(run))


def report_run(run: str | Path) -> Path:
    """Write the report of a run directory anew; raises InputError as `runs.write_report`."""
    return write_report(run, health_of)


def health_of(run: Run) -> list[str] | None:
    """What looks unhealthy about a run, in sentences; None where there is too little to tell."""
    summary = run.summary
    split = None if summary is None else summary.split
    found = judge_records(run.records, f"{split}/mIoU" if split else None)
    kept = None if summary is None else run.score(summary.role)
    if summary is None or kept is None:
        return found
    told = []
    if kept.largest_prediction is not None:
        told.append(judge_predictions(kept.largest_prediction, max(kept.support) / sum(kept.support), kept.network))
    last = run.score(summary.role, weights="last")
    if kept.weights == "ema" and last is not None:
        told.append(judge_average(kept.mIoU, last.mIoU))
    return [*(found or []), *(sentence for sentence in told if sentence)]


def finish_report(finished: Finished) -> None:
    """Measure, score and draw what needs the trained network, and write the report; never raises."""
    full = finished.config.report == "full"
    for network in (*finished.networks.values(), *filter(None, [finished.last, finished.generator])):
        network.to(finished.fabric.device)
    if full:
        _forgiving("the latency is not in the report", lambda: _add_latency(finished))
    if _has_labels(finished.config):
        _forgiving("the scores are not in the report", lambda: _add_scores(finished))
    if finished.generator is not None and "teacher" in finished.networks:
        _forgiving("what the generator makes is not in the report", lambda: _add_sheet(finished))
    if "teacher" in finished.networks and "student" in finished.networks:
        _forgiving("the agreement is not in the report", lambda: _add_agreement(finished))
    refresh_report(finished.path)


def _has_labels(config: Config) -> bool:
    return config.evaluation is not None and evaluation_dataset(config, config.evaluation).labelled


def _forgiving(what: str, act: Callable[[], object]) -> None:
    try:
        act()
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"warning: {what}: {reason}", file=sys.stderr, flush=True)


def _evaluation_size(config: Config) -> tuple[int, int]:
    """That of the first evaluation image as the networks see it; without evaluation that of the training images."""
    if config.evaluation is None:
        return config.image_size
    if config.evaluation.crop_size is not None:
        return config.evaluation.crop_size
    height, width = EvaluationSamples(evaluation_dataset(config, config.evaluation))[0]["mask"].shape
    return height, width


def _cost(network: nn.Module, size: tuple[int, int]) -> Cost:
    spec = network.spec if isinstance(network, Segmentor) else None
    names = [spec.get(key) for key in ("arch", "encoder_name", "factory")] if spec else []
    inner = network.network if isinstance(network, Segmentor) else network
    name = " ".join(str(name) for name in names if name) or type(inner).__name__
    return Cost(name=name, parameters=count_parameters(network), macs=count_flops(network, size) // 2)


def _add_latency(finished: Finished) -> None:
    summary = Run(finished.path).summary
    assert summary is not None
    size, costs = summary.size or finished.config.image_size, {}
    for role, network in finished.networks.items():
        with evaluating(network):
            shape = (getattr(network, "in_channels", 3), *size)
            found = measure_latency(network, shape, device=finished.fabric.device, seconds=LATENCY_SECONDS)
        scatter = found.median / found.fastest - 1
        costs[role] = replace(_cost(network, size), latency_s=found.fastest / 1000, scatter=scatter)
    update_summary(finished.path, costs=costs)


def _add_scores(finished: Finished) -> None:
    """Score what is kept, the weights of the last step beside an average, and the teacher; draw best and worst."""
    config, role = finished.config, finished.config.trained_role
    selected: Weights = "ema" if finished.last is not None else "last"
    images = _scored(finished, role, selected, finished.networks[role])
    if finished.last is not None:
        _scored(finished, role, "last", finished.last)
    full = config.report == "full"
    if full and role == "student" and "teacher" in finished.networks:
        _scored(finished, "teacher", "last", finished.networks["teacher"])
    if full:
        update_summary(finished.path, examples=tuple(_examples(finished, images)))


def _add_agreement(finished: Finished) -> None:
    config, images = finished.config, {}
    weights: Weights = "ema" if finished.last is not None else "last"
    if finished.generator is not None:
        device = finished.fabric.device
        images["generated"] = held_out_images(finished.generator, config.image_size, seed=config.seed, device=device)
    if config.evaluation is not None and not (dataset := evaluation_dataset(config, config.evaluation)).labelled:
        images[config.evaluation.split] = unlabelled_images(dataset)
    add_agreement(finished.path, finished.networks, images, finished.info, weights, most=EXAMPLES)


def _scored(finished: Finished, role: str, weights: Weights, network: nn.Module) -> dict[str, float]:
    """Note a network's score on the evaluation split, unless it is known; returns the mIoU of each image, by name."""
    config, info, section = finished.config, finished.info, finished.config.evaluation
    assert config.dataset is not None and section is not None
    way = {
        "state": state_hash(network),
        "dataset": [config.dataset.name, config.dataset.values()],
        "evaluation": {key: value for key, value in plain(section).items() if key not in UNLIKE_SCORES},
    }
    digest = hashlib.sha256(json.dumps(way, sort_keys=True).encode()).hexdigest()
    known = Run(finished.path).score(role, weights=weights)
    if role == "teacher" and known is not None and known.digest == digest:
        return {}
    dataset = evaluation_dataset(config, section)
    counts = ImageCounts(info.num_classes, info.ignore_index)
    with ProgressReport(f"report: scoring the {role}", len(dataset), unit="image") as progress:
        batches = evaluation_loader(EvaluationSamples(dataset), section)
        metrics = scored(config, finished.fabric, info, network, batches, meters=[counts], progress=progress.advance)
    score = Score.measured(metrics, network=role, weights=weights, split=section.split, digest=digest)
    note_score(finished.path, score)
    scores = {name: image_miou(image) for name, image in zip(counts.names, counts.compute(), strict=True)}
    return {name: score for name, score in scores.items() if score is not None}


def _examples(finished: Finished, scores: dict[str, float]) -> Iterator[Example]:
    config, info = finished.config, finished.info
    assert config.evaluation is not None
    dataset = evaluation_dataset(config, config.evaluation)
    places = {name: place for place, name in enumerate(dataset.names)}
    for number, (kind, name) in enumerate(best_and_worst(scores, EXAMPLES), start=1):
        sample = EvaluationSamples(dataset)[places[name]]
        predictions: dict[str, Tensor] = {}
        reached: dict[str, float | None] = {}
        for role, network in sorted(finished.networks.items(), reverse=True):  # the teacher before the student
            found: list[Tensor] = []
            counts = ImageCounts(info.num_classes, info.ignore_index)
            batch = {"image": sample["image"][None], "mask": sample["mask"][None], "name": [sample["name"]]}
            keep = lambda batch, labels: found.extend(label.cpu() for label in labels)  # noqa: E731, B023
            scored(config, finished.fabric, info, network, [batch], meters=[counts], on_batch=keep)
            predictions[role], reached[role] = found[0], image_miou(counts.compute()[0])
        file = f"pictures/examples/{number:02d}_{kind}.png"
        write_comparison_picture(
            finished.path / file,
            sample["image"].numpy(),
            sample["mask"],
            predictions,
            classes=info.classes,
            palette=info.palette,
            ignore_index=info.ignore_index,
        )
        teacher = reached.get("teacher") if config.trained_role == "student" else None
        yield Example(kind=kind, name=name, file=file, miou=scores[name], teacher_miou=teacher)


def _add_sheet(finished: Finished) -> None:
    generator, config, info = finished.generator, finished.config, finished.info
    assert generator is not None
    seen = write_generator_sheet(
        finished.path / "pictures" / "generator.png",
        generator,
        finished.networks["teacher"],
        size=config.image_size,
        seed=config.seed,
        classes=info.classes,
        palette=info.palette,
    )
    update_summary(finished.path, seen=seen)
