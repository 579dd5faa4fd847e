"""A config and a network, or its stored predictions, become benchmark numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfad_seg.common.errors import InputError, nearest
from dfad_seg.config import Config, EvaluationConfig
from dfad_seg.datasets import MetaInfo
from dfad_seg.evaluation import (
    STORED,
    Agreement,
    BoundaryIoU,
    CalibrationError,
    CocoResultsWriter,
    Evaluation,
    ImageCounts,
    Inference,
    Meter,
    Predicted,
    PredictionWriter,
    SegmentationMetrics,
    evaluate_miou,
    miou_interval,
    predict,
)
from dfad_seg.evaluation.evaluator import evaluating
from dfad_seg.evaluation.pictures import write_evaluation_picture
from dfad_seg.recipes.build import evaluation_dataset, inference_of, meta_info, to_layout
from dfad_seg.recipes.samples import EvaluationSamples, evaluation_loader, warn_of_labels
from dfad_seg.recipes.sources import Source, Stored
from dfad_seg.runs import ProgressReport

TEACHER = f"{STORED}:teacher"


@dataclass(frozen=True)
class Request:
    """What an evaluation is to find out and to write; what costs time is off by default.

    Attributes:
        split: another split than the config's.
        batch_size: another batch size than the config's.
        device: auto, cpu or cuda.
        subset: class names to average over beside all.
        boundary: boundary IoU.
        calibration: expected calibration error; needs a network.
        teacher: a network, or its stored predictions, to measure the agreement with.
        resamples: of the bootstrap intervals; 0: none.
        keep_counts: the counts of each image, for a comparison.
        show_dir: a folder for one picture per image: image, truth, prediction, errors.
        show_limit: pictures of that many images at most.
        save_predictions: a folder for index PNGs.
        save_coco: a JSON file for COCO results.
        title: what the progress shows.
    """

    split: str | None = None
    batch_size: int | None = None
    device: str = "auto"
    subset: tuple[str, ...] = ()
    boundary: bool = False
    calibration: bool = False
    teacher: Source | None = None
    resamples: int = 0
    keep_counts: bool = False
    show_dir: str | Path | None = None
    show_limit: int | None = None
    save_predictions: str | Path | None = None
    save_coco: str | Path | None = None
    title: str = "evaluating"


def evaluate_network(
    config: Config,
    network: torch.nn.Module,
    *,
    split: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    show_dir: str | Path | None = None,
    show_limit: int | None = None,
    title: str = "evaluating",
) -> SegmentationMetrics:
    """Score a network on the config's data set, as its `evaluation` section says. Arguments as in `Request`.

    Raises:
        InputError: the config has no data set, or files of it are wrong.
    """
    request = Request(
        split=split, batch_size=batch_size, device=device, show_dir=show_dir, show_limit=show_limit, title=title
    )
    return evaluate_source(config, network, request).metrics


def evaluate_source(config: Config, model: torch.nn.Module | Stored, request: Request) -> Evaluation:
    """Score a network, or its stored predictions, on the config's data set, as its `evaluation` section says.

    Args:
        config: says data set, and in `evaluation` the split, the size and how a network is applied.
        model: images (N, 3, H, W) in [0, 1] → logits (N, C, H, W); or the predictions.
        request: what to find out and to write.

    Raises:
        InputError: the config has no data set, files of it are wrong, predictions do not fit it, or the request asks
            of stored predictions what they cannot say.
    """
    if config.dataset is None:
        raise InputError("this config has no dataset to evaluate on. Add dataset: {type: ..., root: ...}.")
    info, section = meta_info(config), config.evaluation or EvaluationConfig()
    inference = inference_of(section)
    where = _device(request.device)
    network = to_layout(config, model.to(where)) if isinstance(model, torch.nn.Module) else None
    if network is None and request.calibration:
        raise InputError("the calibration error needs probabilities, which stored predictions do not hold.")
    _check_subset(request.subset, info)
    dataset = evaluation_dataset(config, section, request.split)
    warn_of_labels(dataset)

    stored: dict[str, Stored] = {} if isinstance(model, torch.nn.Module) else {STORED: model}
    teacher = request.teacher
    if teacher is not None and teacher.stored is not None:
        stored[TEACHER] = teacher.stored
    for reader in stored.values():
        _warn_of_extras(reader.check(dataset.names, dataset.ids), reader)
    images = network is not None or request.show_dir is not None or bool(teacher and teacher.network is not None)
    samples = EvaluationSamples(dataset, stored, images=images)

    boundary = BoundaryIoU(info.num_classes, info.ignore_index) if request.boundary else None
    calibration = CalibrationError(info.ignore_index) if request.calibration else None
    counts = ImageCounts(info.num_classes, info.ignore_index) if request.resamples or request.keep_counts else None
    answer = None if teacher is None else _teacher_labels(config, teacher, inference, where)
    agreement = None if answer is None else Agreement(info.num_classes, answer)
    meters: list[Meter] = [meter for meter in (boundary, calibration, counts, agreement) if meter is not None]

    with ExitStack() as stack:
        outputs = list(_outputs(request, info, stack))
        ids = dataset.ids

        def write(batch: Mapping[str, Any], predictions: list[Tensor]) -> None:
            for place, prediction in enumerate(predictions):
                labels = prediction.cpu()
                for output in outputs:
                    output(batch, place, ids[batch["index"][place]], labels)

        progress = stack.enter_context(ProgressReport(request.title, len(samples), unit="image"))
        if teacher is not None and teacher.network is not None:
            stack.enter_context(evaluating(teacher.network))
        metrics = evaluate_miou(
            network,
            evaluation_loader(samples, section, batch_size=request.batch_size),
            num_classes=info.num_classes,
            classes=info.classes,
            ignore_index=info.ignore_index,
            device=where,
            inference=inference,
            meters=meters,
            progress=progress.advance,
            on_batch=write if outputs else None,
        )
    found = counts.compute() if counts is not None else None
    shared = None if agreement is None else agreement.compute()
    labels = [info.classes.index(name) for name in request.subset]
    bootstrap = found is not None and request.resamples > 0
    return Evaluation(
        metrics,
        boundary_iou=None if boundary is None else tuple(boundary.compute()),
        calibration_error=None if calibration is None else calibration.compute(),
        agreement=None if shared is None else shared[0],
        class_agreement=None if shared is None else tuple(shared[1]),
        interval=miou_interval(found, resamples=request.resamples) if bootstrap and found is not None else None,
        subset=request.subset,
        subset_interval=(
            miou_interval(found, resamples=request.resamples, subset=labels)
            if bootstrap and found is not None and labels
            else None
        ),
        counts=found if request.keep_counts else None,
    )


Output = Callable[[Mapping[str, Any], int, "int | str", Tensor], None]


def _outputs(request: Request, info: MetaInfo, stack: ExitStack) -> Iterable[Output]:
    """What is to be done with each label map: `(batch, place in it, image id, labels)`."""
    ids = [info.file_id(label) for label in range(info.num_classes)]
    if request.save_predictions is not None:
        writer = stack.enter_context(PredictionWriter(request.save_predictions, ids, info.palette))
        yield lambda batch, place, image_id, labels: writer.write(batch["name"][place], labels.numpy())
    if request.save_coco is not None:
        results = stack.enter_context(CocoResultsWriter(request.save_coco, ids))
        yield lambda batch, place, image_id, labels: results.write(image_id, labels.numpy())
    if request.show_dir is not None:
        folder, shown = Path(request.show_dir), [0]

        def show(batch: Mapping[str, Any], place: int, image_id: int | str, labels: Tensor) -> None:
            if request.show_limit is not None and shown[0] >= request.show_limit:
                return
            shown[0] += 1
            write_evaluation_picture(
                folder / f"{batch['name'][place]}.png",
                batch["image"][place].numpy(),
                batch["mask"][place],
                labels,
                classes=info.classes,
                palette=info.palette,
                ignore_index=info.ignore_index,
            )

        yield show


def _teacher_labels(
    config: Config, teacher: Source, inference: Inference, where: torch.device
) -> Callable[[Predicted], Tensor]:
    if teacher.network is None:
        return lambda answers: answers.stored[TEACHER]
    network = to_layout(config, teacher.network.to(where))

    def answer(answers: Predicted) -> Tensor:
        assert answers.images is not None
        size = (answers.truth.shape[-2], answers.truth.shape[-1])
        return predict(network, answers.images, size, inference, names=answers.names)

    return answer


def _check_subset(names: Iterable[str], info: MetaInfo) -> None:
    unknown = [name for name in names if name not in info.classes]
    if unknown:
        raise InputError(
            f"the subset names '{unknown[0]}', which is no class.{nearest(unknown[0], info.classes)} "
            f"The classes are {', '.join(info.classes)}."
        )


def _warn_of_extras(extras: list[str], reader: Stored) -> None:
    if extras:
        where = getattr(reader, "folder", None) or getattr(reader, "path", "")
        more = ", …" if len(extras) > 3 else ""
        print(
            f"warning: {where} has predictions of {len(extras)} images that the split does not have, and they are left "
            f"out: {', '.join(extras[:3])}{more}",
            file=sys.stderr,
        )


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, and no CUDA device can be used here. Use --device cpu or auto.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
