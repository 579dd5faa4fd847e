"""A network, or its stored predictions, and a data set become benchmark numbers."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError, some
from dfad_seg.common.modules import evaluating
from dfad_seg.common.progress import ProgressReport
from dfad_seg.common.values import plain, validated
from dfad_seg.config import Config
from dfad_seg.datasets import MetaInfo, SegmentationDataset
from dfad_seg.evaluation import STORED, Evaluation, EvaluationOptions, Inference, evaluate_miou, miou_interval, predict
from dfad_seg.evaluation.meters import Agreement, BoundaryIoU, CalibrationError, ImageCounts, Predicted
from dfad_seg.evaluation.metrics import labels_named, nanmean
from dfad_seg.evaluation.pictures import write_comparison_picture
from dfad_seg.evaluation.predictions import Stored, coco_results_writer, png_writer
from dfad_seg.recipes.build import evaluation_dataset, meta_info, to_layout
from dfad_seg.recipes.device import device_of, evaluation_mode
from dfad_seg.recipes.samples import EvaluationSamples, evaluation_loader, warn_of_labels

TEACHER = f"{STORED}:teacher"
MOST_RESAMPLES = 1_000_000

Output = Callable[[Mapping[str, Any], int, Tensor], None]
"""What is done with each label map: (batch, place in it, labels (H, W))."""


def evaluate(
    data: Config | SegmentationDataset,
    model: Callable[[Tensor], Tensor] | Stored,
    *,
    device: str = "auto",
    subset: Sequence[str] = (),
    boundary: bool = False,
    calibration: bool = False,
    teacher: nn.Module | Stored | None = None,
    resamples: int = 0,
    keep_counts: bool = False,
    show_dir: str | Path | None = None,
    save_predictions: str | Path | None = None,
    save_coco: str | Path | None = None,
    title: str = "evaluating",
    **options: Any,
) -> Evaluation:
    """Score a network, or stored predictions, on a data set; what costs time is off by default.

    Args:
        data: a config, whose `dataset` is opened, and whose `evaluation` says the split and how a network is applied;
            or a data set of `build_dataset`.
        model: images (N, 3, H, W) in [0, 1] → logits (N, C, H, W); or the predictions.
        device: auto, cpu or cuda.
        subset: class names to average over beside all.
        calibration: expected calibration error; needs a network.
        teacher: a network, or its stored predictions, to measure the agreement with.
        resamples: of the bootstrap intervals; 0: none.
        keep_counts: the counts of each image, for a comparison.
        show_dir: a folder for one picture per image: image, truth, prediction, errors.
        save_predictions: a folder for index PNGs.
        save_coco: a JSON file for COCO results.
        options: keys of `EvaluationOptions`, instead of the config's: split="test", flip=True, …

    Returns:
        `.mIoU`, and all else that was asked for.

    Raises:
        InputError: there is no data set, files of it are wrong, predictions do not fit it, logits are not finite, or
            stored predictions are asked for what they cannot say.
    """
    settings = evaluation_options(data if isinstance(data, Config) else None, options)
    dataset = evaluation_dataset(data, settings) if isinstance(data, Config) else data
    if not dataset.labelled:
        raise InputError(
            "the data set has no masks (dataset.ann_dir), so there is no mIoU. For the agreement of student and teacher"
            " on such images, distil with this dataset and an evaluation: the run's report has it."
        )
    info = meta_info(data) if isinstance(data, Config) else data.metainfo
    warn_of_labels(dataset)
    where = device_of(device)
    network = None if isinstance(model, Stored) else _placed(model, where)
    dataset.channels = getattr(network, "in_channels", dataset.channels)
    if network is None and calibration:
        raise InputError("the calibration error (ECE) needs probabilities, which stored predictions do not hold.")
    labels = labels_named(subset, info.classes)
    if not 0 <= resamples <= MOST_RESAMPLES:
        raise InputError(f"a bootstrap of {resamples} resamples: 0 (none) to {MOST_RESAMPLES} are possible.")
    inference = settings if network is None else evaluation_mode(settings, where)

    stored = {key: each for key, each in ((STORED, model), (TEACHER, teacher)) if isinstance(each, Stored)}
    for reader in stored.values():
        if extras := reader.check(dataset.names, dataset.ids):
            left_out = f"{len(extras)} images that the split does not have, and they are left out: {some(extras)}"
            print(f"warning: {reader.path} has predictions of {left_out}", file=sys.stderr)
    images = network is not None or show_dir is not None or isinstance(teacher, nn.Module)
    samples = EvaluationSamples(dataset, stored, images=images)

    meters: dict[str, Any] = {
        "boundary": BoundaryIoU(info.num_classes) if boundary else None,
        "calibration": CalibrationError() if calibration else None,
        "counts": ImageCounts(info.num_classes) if resamples or keep_counts else None,
        "agreement": None if teacher is None else Agreement(info.num_classes, _labels_by(teacher, inference, where)),
    }
    meters = {name: meter for name, meter in meters.items() if meter is not None}
    with ExitStack() as stack:
        outputs = list(_outputs(dataset, info, stack, save_predictions, save_coco, show_dir))

        def write(batch: Mapping[str, Any], predictions: list[Tensor]) -> None:
            for place, prediction in enumerate(predictions):
                labels = prediction.cpu()
                for output in outputs:
                    output(batch, place, labels)

        stack.enter_context(evaluating(teacher))
        metrics = evaluate_miou(
            network,
            evaluation_loader(samples, settings),
            num_classes=info.num_classes,
            classes=info.classes,
            device=where,
            inference=inference,
            meters=list(meters.values()),
            progress=stack.enter_context(ProgressReport(title, len(samples), unit="image")).advance,
            on_batch=write if outputs else None,
        )

    found = {name: meter.compute() for name, meter in meters.items()}
    more: dict[str, float] = {"subset mIoU": nanmean([metrics.iou[label] for label in labels])} if subset else {}
    by_class: dict[str, list[float]] = {}
    if boundary:
        by_class["boundary IoU"] = found["boundary"]
        more["boundary mIoU"] = nanmean(found["boundary"])
    if calibration:
        more["ECE"] = found["calibration"]
    if teacher is not None:
        more["agreement"], by_class["class agreement"] = found["agreement"]
    counts: Any = found.get("counts")
    scopes = {"mIoU": counts} | ({"subset mIoU": counts[:, :, labels]} if subset and resamples else {})
    intervals = {name: miou_interval(of, resamples) for name, of in scopes.items()} if resamples else {}
    kept = counts if keep_counts else None
    return Evaluation(metrics, more, by_class, intervals, subset, kept, inference.precision)


def evaluation_options(config: Config | None, changes: Mapping[str, Any]) -> EvaluationOptions:
    """The config's `evaluation`, or the defaults, with changes whose values are not None."""
    if config is not None and config.dataset is None:
        raise InputError("this config has no dataset to evaluate on. Add dataset: {type: ..., root: ...}.")
    base = config.evaluation if config is not None else None
    given = {key: value for key, value in changes.items() if value is not None}
    return validated(EvaluationOptions, plain(base or EvaluationOptions()) | given, "evaluation")


def _placed(network: Any, where: torch.device) -> Any:
    return to_layout(network.to(where)) if isinstance(network, nn.Module) else network


def _labels_by(teacher: nn.Module | Stored, inference: Inference, where: torch.device) -> Callable[[Predicted], Tensor]:
    if isinstance(teacher, Stored):
        return lambda seen: seen.stored[TEACHER]
    network = _placed(teacher, where)

    def labels(seen: Predicted) -> Tensor:
        assert seen.images is not None
        names = [f"{name} (teacher)" for name in seen.names]
        return predict(network, seen.images, (seen.truth.shape[-2], seen.truth.shape[-1]), inference, names=names)

    return labels


def _outputs(
    dataset: SegmentationDataset,
    info: MetaInfo,
    stack: ExitStack,
    predictions: str | Path | None,
    coco: str | Path | None,
    show_dir: str | Path | None,
) -> Iterator[Output]:
    if predictions is not None:
        write = png_writer(predictions, info.ids(), info.palette)
        yield lambda batch, place, labels: write(batch["name"][place], labels.numpy())
    if coco is not None:
        results, ids = stack.enter_context(coco_results_writer(coco, info.ids())), dataset.ids
        yield lambda batch, place, labels: results(ids[batch["index"][place]], labels.numpy())
    if show_dir is not None:
        folder = Path(show_dir)

        def show(batch: Mapping[str, Any], place: int, labels: Tensor) -> None:
            path, image, truth = folder / f"{batch['name'][place]}.png", batch["image"][place], batch["mask"][place]
            found = {"prediction": labels}
            write_comparison_picture(path, image, truth, found, info.classes, info.palette, heights=(240, 1080))

        yield show
