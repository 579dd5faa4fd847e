"""What `tools/eval_miou.py` does once its arguments are parsed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dfad_seg.common.errors import InputError
from dfad_seg.config import Config, EvaluationConfig, apply_override, load_config, parse_config
from dfad_seg.evaluation import Comparison, Evaluation, miou_difference, write_result
from dfad_seg.evaluation.bootstrap import RESAMPLES
from dfad_seg.evaluation.results import check_suffix
from dfad_seg.recipes.build import inference_of, meta_info
from dfad_seg.recipes.evaluate import Request, evaluate_source
from dfad_seg.recipes.faults import explained
from dfad_seg.recipes.provenance import command_line
from dfad_seg.recipes.sources import Source, open_predictions, open_source, run_config


def evaluate_from_arguments(
    *,
    config: str | None,
    checkpoint: str | None,
    predictions: str | None,
    compare: Sequence[str],
    overrides: Sequence[str],
    dataset: str | None,
    dataset_root: str | None,
    role: str | None,
    teacher: str | None,
    out: Sequence[str],
    inference: Mapping[str, Any],
    request: Request,
) -> int:
    """`tools/eval_miou.py`; returns the exit code.

    Args:
        config: a YAML file, or a run directory, whose network is then scored unless another is named.
        checkpoint: a network file or run directory.
        predictions: a folder of PNGs or a JSON file, instead of a network.
        compare: several runs, network files or predictions, each as PATH or NAME=PATH.
        overrides: `key=value` config overrides.
        dataset: a type of data set, where no config is given.
        dataset_root: instead of the config's.
        role: which network of the config a checkpoint of bare weights is.
        teacher: a run, network file or predictions to measure the agreement with.
        out: .json and .csv files.
        inference: keys of the config's `evaluation` section to override; None values are left out.
        request: everything else.

    Raises:
        InputError: the arguments do not go together, or anything that they name is wrong.
    """
    if config is not None and checkpoint is None and dataset is not None:
        config, checkpoint = None, config  # without a config the first path is the network
    _check_combination(config, checkpoint, predictions, compare, request)
    _check_outputs(out, request)
    resolved, config = resolve_experiment(config, compare, overrides, dataset, dataset_root, inference)
    if teacher is not None:
        request = replace(request, teacher=open_source(resolved, teacher, role=_teacher_role(resolved, teacher)))
    request = replace(request, device=resolved.device)
    result: Evaluation | Comparison
    section = resolved.evaluation or EvaluationConfig()
    batch = f"{request.batch_size or section.batch_size} images at once"
    with explained(batch=batch, advice="Lower --batch-size, or answer in windows with --crop"):
        if compare:
            result, record = _compare(resolved, compare, request)
        else:
            source = _source(resolved, config, checkpoint, predictions, role)
            model = source.network or source.stored
            assert model is not None
            result, record = evaluate_source(resolved, model, request), source.record()
    print(result.report())
    record |= {
        "dataset": resolved.dataset.type if resolved.dataset else None,
        "split": request.split or section.split,
        "short_side": section.short_side,
        "inference": section.model_dump(
            mode="json",
            include={"crop_size", "crop_stride", "scales", "flip", "precision"},
            exclude_none=True,
        ),
        "command": command_line(),
    }
    if request.teacher is not None:
        record["teacher"] = str(request.teacher.path)
    for path in out:
        write_result(path, result, record)
        print(f"metrics: {path}")
    for what, where in (
        ("predictions", request.save_predictions),
        ("COCO results", request.save_coco),
        ("pictures", request.show_dir),
    ):
        if where is not None:
            print(f"{what}: {where}")
    return 0


def resolve_experiment(
    config: str | None,
    compare: Sequence[str],
    overrides: Sequence[str],
    dataset: str | None,
    dataset_root: str | None,
    inference: Mapping[str, Any],
) -> tuple[Config, str | None]:
    """The config with everything that a command line changes, and the run directory or file that it came from."""
    changes = [f"evaluation.{key}={json.dumps(value)}" for key, value in inference.items() if value is not None]
    if dataset_root is not None:
        changes.append(f"dataset.root={json.dumps(dataset_root)}")
    if dataset is not None:
        if dataset_root is None:
            raise InputError("--dataset needs --dataset-root: the folder that holds the set.")
        if config is not None:
            changes.append(f"dataset.type={json.dumps(dataset)}")
    if config is None and dataset is None:
        found = next((path for path in map(run_config, map(_path_of, compare)) if path is not None), None)
        if found is None:
            raise InputError("no data set: give CONFIG, or --dataset TYPE with --dataset-root DIR.")
        config = str(found)
    if config is None:
        # Nothing is trained: the method and its network are placeholders, which no one builds.
        base: dict[str, Any] = {
            "method": "supervised",
            "student": {"source": "saved"},
            "dataset": {"type": dataset},
        }
        for override in [*overrides, *changes]:
            apply_override(base, override)
        return parse_config(base, where="command line"), None
    file = Path(config) / "config.yaml" if Path(config).is_dir() else Path(config)
    if not file.is_file() and file.name == "config.yaml" and Path(config).is_dir():
        raise InputError(f"{config} is no run directory: it has no config.yaml.")
    return load_config(file, [*overrides, *changes]), config


def _source(
    config: Config, config_path: str | None, checkpoint: str | None, predictions: str | None, role: str | None
) -> Source:
    if predictions is not None:
        return open_predictions(config, predictions)
    if checkpoint is None:
        assert config_path is not None
        if not Path(config_path).is_dir():
            raise InputError("nothing to score: give CHECKPOINT, a run directory, --predictions or --compare.")
        return open_source(config, config_path)
    # A placeholder section has no architecture to offer; the file must know its own.
    if role is not None or not Path(checkpoint).is_file() or config_path is None:
        return open_source(config, checkpoint, role=role)
    try:
        return open_source(config, checkpoint, role=config.trained_role)
    except InputError as error:
        if config.trained_role == "teacher" or config.teacher is None:
            raise
        raise InputError(f"{error} If {checkpoint} is the teacher, say so: --role teacher.") from None


def _teacher_role(config: Config, teacher: str) -> str | None:
    # Bare weights of a teacher belong to the teacher's section, if there is one.
    return (
        "teacher" if config.teacher is not None and Path(teacher).is_file() and not teacher.endswith(".json") else None
    )


def _compare(config: Config, items: Sequence[str], request: Request) -> tuple[Comparison, dict[str, Any]]:
    inference_of(config.evaluation or EvaluationConfig())
    names = _names(items)
    resamples = request.resamples or RESAMPLES
    request = replace(request, resamples=resamples, keep_counts=True)
    evaluations: dict[str, Evaluation] = {}
    records = {}
    for name, item in zip(names, items, strict=True):
        source = open_source(config, _path_of(item))
        model = source.network or source.stored
        assert model is not None
        evaluations[name] = evaluate_source(config, model, replace(request, title=f"evaluating {name}"))
        records[name] = source.record()
    labels = [meta_info(config).classes.index(name) for name in request.subset] or None
    first, *others = evaluations
    counts = {name: evaluation.counts for name, evaluation in evaluations.items() if evaluation.counts is not None}
    differences = {
        name: miou_difference(counts[first], counts[name], resamples=resamples, subset=labels) for name in others
    }
    return Comparison(evaluations, differences), {"sources": records}


def _names(items: Sequence[str]) -> list[str]:
    """A short name for each compared item: what stands before `=`, or what tells the paths apart."""
    short = []
    for item in items:
        given, separator, _ = item.partition("=")
        path = Path(_path_of(item))
        if separator and not Path(item).exists():
            short.append(given)
        elif path.stem in ("student", "teacher") and path.suffix == ".pt" and path.parent.name:
            short.append(path.parent.name)
        else:
            short.append(path.stem if path.is_file() else path.name or str(path))
    if len(set(short)) == len(short):
        return short
    whole = [item if "=" not in item else name for item, name in zip(items, short, strict=True)]
    if len(set(whole)) < len(whole):
        raise InputError("--compare names the same thing twice. Give names: --compare a=PATH b=PATH.")
    return whole


def _path_of(item: str) -> str:
    """The path of `NAME=PATH` or `PATH`."""
    name, separator, path = item.partition("=")
    return path if separator and path and "/" not in name and not Path(item).exists() else item


def _check_combination(
    config: str | None, checkpoint: str | None, predictions: str | None, compare: Sequence[str], request: Request
) -> None:
    given = [
        name
        for name, value in (("CHECKPOINT", checkpoint), ("--predictions", predictions), ("--compare", compare or None))
        if value is not None
    ]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} do not go together: one says what is scored.")
    if not given and config is None:
        raise InputError("nothing to score: give CONFIG and CHECKPOINT, a run directory, --predictions or --compare.")
    if compare and len(compare) < 2:
        raise InputError("--compare needs at least two runs, network files or prediction folders.")
    if compare and (request.save_predictions or request.save_coco or request.show_dir):
        raise InputError("--compare writes no predictions or pictures; evaluate each model by itself for these.")


def _check_outputs(out: Sequence[str], request: Request) -> None:
    """Find out before a long evaluation that its results could not be written."""
    files = [("--out", path) for path in out]
    if request.save_coco is not None:
        files.append(("--save-coco", str(request.save_coco)))
    folders = [("--show-dir", request.show_dir), ("--save-predictions", request.save_predictions)]
    for option, path in files:
        if Path(path).is_dir():
            raise InputError(f"{option} {path} is a folder. Give the path of a file.")
        if option == "--out":
            check_suffix(Path(path))
    for option, folder in folders:
        if folder is not None and Path(folder).exists() and not Path(folder).is_dir():
            raise InputError(f"{option} {folder} is a file. Give a folder.")
    places = [(option, Path(path).absolute().parent) for option, path in files]
    places += [(option, Path(folder)) for option, folder in folders if folder is not None]
    for option, place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            raise InputError(f"cannot write {option} into {place}: {error.strerror}.") from None
