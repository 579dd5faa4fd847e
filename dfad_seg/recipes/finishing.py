"""What a run finds out for its summary and its report beside training: costs, scores, examples, its generator."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from lightning_fabric import Fabric
from torch import Tensor, nn

from dfad_seg.common.modules import evaluating
from dfad_seg.common.progress import ProgressReport
from dfad_seg.common.speed import measure_latency
from dfad_seg.config import Config, GameConfig
from dfad_seg.datasets import MetaInfo, SegmentationDataset
from dfad_seg.distill.health import judge_average, judge_predictions, judge_records
from dfad_seg.evaluation import ImageCounts, evaluate_miou, mious
from dfad_seg.evaluation.pictures import write_comparison_picture
from dfad_seg.recipes.build import Experiment, evaluation_dataset, scored
from dfad_seg.recipes.pictures import write_generator_sheet
from dfad_seg.recipes.quality import estimate, held_out_images, labelled_by, unshifted
from dfad_seg.recipes.samples import EvaluationSamples, evaluation_loader
from dfad_seg.runs import START_FILE, Run, note_score, update_summary, write_report
from dfad_seg.runs.records import Cost, Example, Score, Weights
from dfad_seg.segmentors import NetworkFailed, Segmentor, is_cut_of, load_segmentor, state_hash
from dfad_seg.segmentors.cost import count_flops, count_parameters

LATENCY_SECONDS = 2.0
EXAMPLES = 3
"""Best and worst images to show, of each."""


def start_report(run: Path, config: Config, networks: dict[str, nn.Module], device: str) -> None:
    """Begin the run's summary with what the networks (by role) are and cost; an earlier part of a run has done so."""
    if Run(run).summary is None:
        role, split = config.trained_role, config.evaluation.split if config.evaluation else None
        selected: Weights = "ema" if config.ema_decay else "last"
        update_summary(run, role=role, iterations=config.iterations, selected=selected, split=split, device=device)

        def costs() -> None:
            size = _evaluation_size(config)
            update_summary(run, size=size, costs={role: _cost(network, size) for role, network in networks.items()})

        _forgiving("what the networks cost is not in the report", costs, NetworkFailed)  # scoring would fail, too
    refresh_report(run)


def refresh_report(run: str | Path) -> None:
    """Write the report anew from the run's files. Whatever goes wrong is a warning: no run fails for its report."""
    _forgiving("the report could not be written", lambda: write_report(run, health_of))


def report_runs(runs: Sequence[str]) -> None:
    """Write the reports of run directories anew, and print where; raises InputError as `write_report`."""
    for run in runs:
        print(write_report(run, health_of))


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


def _forgiving(what: str, act: Callable[[], object], unless: type[Exception] | tuple[()] = ()) -> None:
    try:
        act()
    except unless:
        raise
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


@dataclass
class Finished:
    """A run that has come to its end, and its report; `networks` by role, the trained one as it is kept."""

    path: Path
    experiment: Experiment
    networks: dict[str, nn.Module]
    fabric: Fabric

    def __post_init__(self) -> None:
        self.config: Config = self.experiment.config
        self.info: MetaInfo = self.experiment.info
        self.selected: Weights = "ema" if self.config.ema_decay else "last"

    @cached_property
    def dataset(self) -> SegmentationDataset | None:
        """The images that are scored, or without labels compared."""
        return evaluation_dataset(self.config, self.config.evaluation) if self.config.evaluation else None

    def report(self) -> None:
        """Measure, score and draw what needs the trained network, and write the report; never raises."""
        config, generator = self.config, self.experiment.generator
        for network in filter(None, [*self.networks.values(), self.experiment.trained, generator]):
            network.to(self.fabric.device)
        if config.report == "full":
            _forgiving("the latency is not in the report", self.add_latency)
        if self.dataset is not None and self.dataset.labelled:
            _forgiving("the scores are not in the report", self.add_scores)
        if isinstance(config, GameConfig):
            _forgiving("what the generator makes is not in the report", self.add_sheet)
        if {"teacher", "student"} <= self.networks.keys():
            _forgiving("the agreement is not in the report", self.add_agreement)
        refresh_report(self.path)

    def add_latency(self) -> None:
        summary = Run(self.path).summary
        assert summary is not None
        size, costs = summary.size or self.config.image_size, {}
        for role, network in self.networks.items():
            with evaluating(network):
                shape = (getattr(network, "in_channels", 3), *size)
                found = measure_latency(network, shape, device=self.fabric.device, seconds=LATENCY_SECONDS)
            costs[role] = replace(_cost(network, size), latency_s=found.fastest / 1000, scatter=found.scatter)
        update_summary(self.path, costs=costs)

    def add_scores(self) -> None:
        """Score what is kept, the last weights beside an average, the teacher, and the start; draw best and worst."""
        config, role, teacher = self.config, self.config.trained_role, self.experiment.teacher
        full, start = config.report == "full", self.path / START_FILE
        reached = self._scored(role, self.selected, self.networks[role])
        if self.selected == "ema":
            self._scored(role, "last", self.experiment.trained)
        if not full:
            return
        if teacher is not None:
            self._scored("teacher", "last", teacher)
            if config.cuts and start.exists():
                as_cut = load_segmentor(start, trust=is_cut_of(start, teacher))  # a run directory may be anybody's
                self._scored(role, "start", as_cut.to(self.fabric.device))
        score = partial(scored, config, self.fabric, self.info)
        update_summary(self.path, examples=tuple(self._examples(reached, self.networks, score)))

    def _scored(self, role: str, weights: Weights, network: nn.Module) -> dict[str, float]:
        """Note a network's score on the evaluation split; returns the mIoU of each image, by name."""
        config, section = self.config, self.config.evaluation
        assert section is not None and self.dataset is not None
        counts = ImageCounts(self.info.num_classes)
        with ProgressReport(f"report: scoring the {role}", len(self.dataset), unit="image") as progress:
            batches = evaluation_loader(EvaluationSamples(self.dataset), section)
            more = {"meters": [counts], "progress": progress.advance}
            metrics = scored(config, self.fabric, self.info, network, batches, **more)
        which = {"network": role, "weights": weights, "split": section.split, "digest": state_hash(network)}
        note_score(self.path, Score.measured(metrics.to_dict(), **which))
        return _by_name(counts)

    def _examples(
        self,
        scores: dict[str, float],
        networks: Mapping[str, nn.Module],
        score: Callable[..., object],
        truth_by: nn.Module | None = None,
    ) -> Iterator[Example]:
        """Draw the images on which the trained network does best and worst, with the predictions of `networks`.

        Args:
            scores: mIoU by image.
            score: applies a network to batches, as `evaluate_miou` does.
            truth_by: whose predictions stand for the truth, where there are no labels.
        """
        info, dataset = self.info, self.dataset
        assert dataset is not None
        for number, (kind, name) in enumerate(best_and_worst(scores, EXAMPLES), start=1):
            sample = EvaluationSamples(dataset)[dataset.names.index(name)]
            batch = {"image": sample["image"][None], "mask": sample["mask"][None], "name": [name]}
            if truth_by is not None:
                [batch] = labelled_by(truth_by, [batch])
            predictions: dict[str, Tensor] = {}
            reached: dict[str, float | None] = {}
            for role, network in sorted(networks.items(), reverse=True):  # the teacher before the student
                counts = ImageCounts(info.num_classes)
                keep = lambda _, labels: predictions.update({role: labels[0].cpu()})  # noqa: E731, B023
                score(network, [batch], meters=[counts], on_batch=keep)
                reached[role] = _by_name(counts).get(name)
            file = f"pictures/examples/{number:02d}_{kind}.png"
            look: dict[str, Any] = {"classes": info.classes, "palette": info.palette}
            look["truth_name"] = "truth" if truth_by is None else "teacher"
            write_comparison_picture(self.path / file, sample["image"], batch["mask"][0], predictions, **look)
            teacher = reached.get("teacher") if self.config.trained_role == "student" else None
            yield Example(kind=kind, name=name, file=file, miou=scores[name], teacher_miou=teacher)

    def add_agreement(self) -> None:
        """How far the student predicts what its teacher does, on images that nobody trained on, and what that says."""
        config, info, dataset = self.config, self.info, self.dataset
        teacher, student = self.networks["teacher"], self.networks["student"]
        assert isinstance(teacher, Segmentor) and isinstance(student, Segmentor)
        score = partial(evaluate_miou, num_classes=info.num_classes, classes=info.classes)
        scores, guess = [], None
        if isinstance(config, GameConfig) and self.experiment.generator is not None:
            images = list(held_out_images(self.experiment.generator, config.image_size, seed=config.seed))
            seen = unshifted(student, teacher, images, config.logit_adjustment)
            which = {"network": "student", "weights": self.selected, "split": "generated"}
            scores.append(Score.measured(score(seen, labelled_by(teacher, images)).to_dict(), **which))
            guess = estimate(scores[0], cut=(student.spec or {}).get("source") == "cut")
        if config.evaluation is not None and dataset is not None and not dataset.labelled:
            counts = ImageCounts(info.num_classes)
            loader = evaluation_loader(EvaluationSamples(dataset), replace(config.evaluation, batch_size=1))
            metrics = score(student, labelled_by(teacher, loader), meters=[counts])
            which = {"network": "student", "weights": self.selected, "split": config.evaluation.split}
            scores.append(Score.measured(metrics.to_dict(), **which))
            drawn = self._examples(_by_name(counts), {"student": student}, score, truth_by=teacher)
            update_summary(self.path, examples=tuple(drawn))
        update_summary(self.path, agreement=tuple(scores), estimate=guess)

    def add_sheet(self) -> None:
        config, generator, file = self.config, self.experiment.generator, self.path / "pictures" / "generator.png"
        assert generator is not None
        networks, size, seed = self.networks, config.image_size, config.seed
        seen = write_generator_sheet(file, generator, networks["teacher"], size, seed, self.info)
        update_summary(self.path, seen=seen)


def _by_name(counts: ImageCounts) -> dict[str, float]:
    """The mIoU of each image that has one."""
    found = zip(counts.names, mious(counts.compute()).tolist(), strict=True)
    return {name: miou for name, miou in found if miou == miou}


def best_and_worst(scores: dict[str, float], count: int) -> list[tuple[Literal["worst", "best"], str]]:
    """(kind, name): the worst images first, then the best; none twice, `count` of each at most."""
    order = sorted(scores, key=lambda name: (scores[name], name))
    half = min(count, (len(order) + 1) // 2)
    best = order[half:][-count:][::-1]
    return [("worst", name) for name in order[:half]] + [("best", name) for name in best]
