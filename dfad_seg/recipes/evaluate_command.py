"""What `dfad-seg eval` and `tools/eval_miou.py` do once their arguments are parsed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import check_target, write_csv, write_json
from dfad_seg.config import Config, apply_override, load_config, parse_config
from dfad_seg.evaluation import Comparison, Evaluation, EvaluationOptions, Inference
from dfad_seg.evaluation.bootstrap import RESAMPLES
from dfad_seg.recipes.build import build_teacher, meta_info
from dfad_seg.recipes.device import explained
from dfad_seg.recipes.evaluate import evaluate, evaluation_options
from dfad_seg.recipes.provenance import command_line
from dfad_seg.recipes.sources import (
    Source,
    is_of_a_run,
    open_predictions,
    open_source,
    refuse_code,
    role_of,
    run_config,
    weights_of,
)
from dfad_seg.runs import note_evaluation


def evaluate_from_arguments(**arguments: Any) -> int:
    """Evaluate as the command line says (`cli.arguments.evaluate`), write the files, then print; returns the exit code.

    Raises:
        InputError: the arguments do not go together, or anything that they name is wrong.
    """
    given = SimpleNamespace(**arguments)
    config, checkpoint = given.config, given.checkpoint
    options = {key.name: arguments[key.name] for key in fields(EvaluationOptions) if key.name in arguments}
    if config is not None and checkpoint is None and given.dataset is not None:
        config, checkpoint = None, config  # without a config the first path is the network
    scored = {"CHECKPOINT": checkpoint, "--predictions": given.predictions, "--compare": given.compare or None}
    _check_what(config, **scored)
    files: dict[str, Any] = {name: getattr(given, name) for name in ("save_predictions", "save_coco", "show_dir")}
    written = [("--out", path) for path in given.out]
    written += [(f"--{name.replace('_', '-')}", path) for name, path in files.items() if path is not None]
    if given.compare and len(written) > len(given.out):
        raise InputError(f"--compare writes no predictions or pictures ({written[-1][0]}); evaluate each by itself.")
    for name, path in written:
        if name == "--out" and Path(path).suffix.lower() not in (".json", ".csv"):
            raise InputError(f"--out {path}: results are JSON or CSV. Give a name that ends in .json or .csv.")
        check_target(path, name, folder=name in ("--save-predictions", "--show-dir"))

    named = _named(given.compare)
    known: dict[str, Any] = {"trust": given.trust, "own": config is not None and not is_of_a_run(config)}
    resolved, config = _resolved(config, list(named.values()), given.cfg_options, given.dataset, given.dataset_root)
    settings = evaluation_options(resolved, options)
    record: dict[str, Any] = {}
    wanted: dict[str, Any] = {key.name: getattr(settings, key.name) for key in fields(settings)}
    wanted |= {"device": resolved.device, "resamples": given.ci}
    wanted |= {"boundary": given.boundary_iou, "calibration": given.ece}
    if given.subset is not None:
        wanted["subset"] = [name.strip() for name in given.subset.split(",") if name.strip()]
        if not wanted["subset"]:
            raise InputError(f"--subset '{given.subset}' names no class. Give names, separated by commas.")
    if given.teacher is not None:
        # Bare weights of a teacher belong to the teacher's section, if there is one.
        bare = resolved.teacher is not None and Path(given.teacher).is_file() and not given.teacher.endswith(".json")
        wanted["teacher"] = open_source(resolved, given.teacher, role="teacher" if bare else None, **known).model
        record["teacher"] = given.teacher
    result: Evaluation | Comparison
    batch = f"{settings.batch_size} images at once"
    with explained(batch=batch, advice="Lower --batch-size, or predict in windows with --crop"):
        if given.compare:
            evaluations, record["sources"] = {}, {}
            wanted |= {"resamples": given.ci or RESAMPLES, "keep_counts": True}
            for name, item in named.items():
                own = item == "teacher" and not Path(item).exists()
                source = _own_teacher(resolved, named, given.trust) if own else open_source(resolved, item, **known)
                evaluations[name] = evaluate(resolved, source.model, title=f"evaluating {name}", **wanted)
                record["sources"][name] = source.record()
            result, one = Comparison.of(evaluations, wanted["resamples"]), next(iter(evaluations.values()))
        else:
            source = _source(resolved, config, checkpoint, given.predictions, given.role, known)
            result = one = evaluate(resolved, source.model, **wanted, **files)
            record |= source.record()
    inference = {key.name: asdict(settings)[key.name] for key in fields(Inference)} | {"precision": one.precision}
    record |= {
        "dataset": resolved.dataset.name if resolved.dataset else None,
        "split": settings.split,
        "short_side": settings.short_side,
        "inference": {key: value for key, value in inference.items() if value is not None},
        "command": command_line(),
    }
    for path in given.out:
        if Path(path).suffix.lower() == ".csv":
            write_csv(path, result.to_rows())
        else:
            write_json(path, {**record, **result.to_dict()})
    as_the_run = all(options[key] is None for key in options if key not in ("split", "batch_size", "num_workers"))
    noted, of = None, checkpoint or config
    if as_the_run and of and not given.compare and given.predictions is None and given.dataset is None:
        role = given.role if checkpoint is None else None
        noted = note_evaluation(of, one.metrics, role=role, split=settings.split, command=command_line())
    print(result.report())
    if noted is not None:
        print(f"the run's summary has the score, for dfad-seg compare: {noted / 'summary.json'}")
    for name, path in written:
        print(f"{name[2:]}: {path}")
    return 0


def _resolved(
    config: str | None, compare: Sequence[str], overrides: Sequence[str], dataset: str | None, dataset_root: str | None
) -> tuple[Config, str | None]:
    """The config with everything that a command line changes, and the run directory or file that it came from."""
    changes = [] if dataset_root is None else [f"dataset.root={json.dumps(dataset_root)}"]
    if dataset is not None and dataset_root is None:
        raise InputError("--dataset needs --dataset-root: the folder that holds the set.")
    if config is None and dataset is not None:
        # Nothing is trained: the method and its network are placeholders, which no one builds.
        base: dict[str, Any] = {
            "method": "supervised",
            "student": {"source": "saved", "checkpoint": "none"},
            "dataset": {"type": dataset},
        }
        for override in [*overrides, *changes]:
            apply_override(base, override)
        return parse_config(base, where="command line"), None
    if config is None and (found := _config_of_first(compare)) is not None:
        config = str(found)
    if config is None:
        raise InputError("no data set: give CONFIG, or --dataset TYPE with --dataset-root DIR.")
    if dataset is not None:
        changes.append(f"dataset.type={json.dumps(dataset)}")
    file = Path(config) / "config.yaml" if Path(config).is_dir() else Path(config)
    if Path(config).is_dir() and not file.is_file():
        raise InputError(f"{config} is no run directory: it has no config.yaml.")
    return load_config(file, [*overrides, *changes]), config


def _check_what(config: str | None, **what: Any) -> None:
    given = [name for name, value in what.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} do not go together: one says what is scored.")
    if not given and (config is None or not Path(config).is_dir()):
        raise InputError("nothing to score: give CONFIG and CHECKPOINT, a run directory, --predictions or --compare.")
    if given == ["--compare"] and len(what["--compare"]) < 2:
        raise InputError("--compare needs at least two runs, network files or prediction folders.")


def _source(
    config: Config,
    config_path: str | None,
    checkpoint: str | None,
    predictions: str | None,
    role: str | None,
    known: dict[str, Any],
) -> Source:
    if predictions is not None:
        return open_predictions(config, predictions)
    if checkpoint is None:
        assert config_path is not None
        if role is None or role == config.trained_role:
            return open_source(config, config_path, **known)
        if role == "student":
            raise InputError(f"{config_path} trained a teacher and has no student. Leave --role out.")
        return _own_teacher(config, {role: config_path}, known["trust"])
    # A placeholder section has no architecture to offer; the file must know its own.
    if role is None and Path(checkpoint).is_file() and config_path is not None:
        role = role_of(config, checkpoint)
    return open_source(config, checkpoint, role=role, **known)


def _own_teacher(config: Config, named: dict[str, str], trust: bool) -> Source:
    """What `teacher` stands for beside a run: the network that it was distilled from, as its config says."""
    file = _config_of_first(named.values())
    theirs = None if file is None else load_config(file)
    section = None if theirs is None else theirs.teacher
    if theirs is None or section is None:
        raise InputError("no run is named whose config has a teacher. Give the path of the teacher itself.")
    refuse_code(section, "teacher", trust=trust)
    return Source(weights_of(section), build_teacher(theirs, meta_info(config)), "teacher")


def _config_of_first(items: Iterable[str]) -> Path | None:
    return next((file for file in map(run_config, items) if file is not None), None)


def _named(items: Sequence[str]) -> dict[str, str]:
    """The paths of `NAME=PATH` or `PATH` by name, by default that of the run, file or folder."""
    named: dict[str, str] = {}
    for item in items:
        name, _, path = item.partition("=")
        if not path or "/" in name or Path(item).exists():
            file, path = Path(item), item
            file = file.parent if file.name in ("student.pt", "teacher.pt") else file
            name = (file.stem if file.is_file() else file.name) or path
        if name in named:
            raise InputError("--compare names two things alike. Give names: --compare a=PATH b=PATH.")
        named[name] = path
    return named
