"""What `dfad-seg eval` and `tools/eval_miou.py` do once their arguments are parsed."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dfad_seg.common.errors import InputError, instead_of
from dfad_seg.common.files import check_target, write_csv, write_json
from dfad_seg.common.values import plain
from dfad_seg.config import Config, apply_override, load_config, parse_config
from dfad_seg.evaluation import Comparison, Evaluation, EvaluationOptions, Inference
from dfad_seg.evaluation.bootstrap import RESAMPLES
from dfad_seg.recipes.device import explained
from dfad_seg.recipes.evaluate import evaluate, evaluation_options
from dfad_seg.recipes.provenance import command_line
from dfad_seg.recipes.sources import Source, is_of_a_run, open_predictions, open_source, role_of, run_config, teacher_of
from dfad_seg.runs import note_evaluation


def evaluate_from_arguments(**arguments: Any) -> int:
    """Evaluate as the command line says (`cli.arguments.evaluate`), write the files, then print; returns the exit code.

    Raises:
        InputError: the arguments do not go together, or anything that they name is wrong.
    """
    given = SimpleNamespace(**arguments)
    if given.config is not None and given.checkpoint is None and given.dataset is not None:
        given.config, given.checkpoint = None, given.config  # without a config the first path is the network
    _check_what(given)
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
    known: dict[str, Any] = {"trust": given.trust, "own": given.config is not None and not is_of_a_run(given.config)}
    config = _config(given, list(named.values()))
    options = {key.name: arguments[key.name] for key in fields(EvaluationOptions) if key.name in arguments}
    settings = evaluation_options(config, options)
    wanted: dict[str, Any] = options | {"device": config.device, "resamples": given.ci}
    wanted |= {"boundary": given.boundary_iou, "calibration": given.ece}
    record: dict[str, Any] = {}
    if given.subset is not None:
        wanted["subset"] = [name.strip() for name in given.subset.split(",")]
    if given.teacher is not None:
        # Bare weights of a teacher belong to the teacher's section, if there is one.
        bare = config.teacher is not None and Path(given.teacher).is_file() and not given.teacher.endswith(".json")
        wanted["teacher"] = open_source(config, given.teacher, role="teacher" if bare else None, **known).model
        record["teacher"] = given.teacher
    result: Evaluation | Comparison
    batch = f"{settings.batch_size} images at once"
    with explained(batch=batch, advice="Lower --batch-size, or predict in windows with --crop"):
        if given.compare:
            evaluations, record["sources"], first = {}, {}, _config_of_first(named.values())
            wanted |= {"resamples": given.ci or RESAMPLES, "keep_counts": True}
            for name, item in named.items():
                own = item == "teacher" and not Path(item).exists()
                source = teacher_of(config, first, given.trust) if own else open_source(config, item, **known)
                evaluations[name] = evaluate(config, source.model, title=f"evaluating {name}", **wanted)
                record["sources"][name] = source.record()
            result, one = Comparison.of(evaluations, wanted["resamples"]), next(iter(evaluations.values()))
        else:
            source = _source(config, given, known)
            result = one = evaluate(config, source.model, **wanted, **files)
            record |= source.record()
    applied = plain(settings) | {"precision": one.precision}
    record |= {
        "dataset": config.dataset.name if config.dataset else None,
        "split": settings.split,
        "short_side": settings.short_side,
        "inference": {key.name: applied[key.name] for key in fields(Inference) if key.name in applied},
        "command": command_line(),
    }
    for path in given.out:
        if Path(path).suffix.lower() == ".csv":
            write_csv(path, result.to_rows())
        else:
            write_json(path, {**record, **result.to_dict()})
    as_the_run = all(options[key] is None for key in options if key not in ("split", "batch_size", "num_workers"))
    noted, of = None, given.checkpoint or given.config
    file = run_config(of) if of else None
    run = None if file is None else load_config(file)
    same = run and run.dataset in (None, config.dataset) and run.evaluation in (None, config.evaluation)
    if as_the_run and of and same and not (given.compare or given.predictions or given.dataset):
        role = given.role if given.checkpoint is None else None
        noted = note_evaluation(of, one.metrics.to_dict(), role=role, split=settings.split, command=command_line())
    print(result.report())
    if noted is not None:
        print(f"the run's summary has the score, for dfad-seg compare: {noted / 'summary.json'}")
    for name, path in written:
        print(f"{name[2:]}: {path}")
    return 0


def _check_what(given: Any) -> None:
    what = {"CHECKPOINT": given.checkpoint, "--predictions": given.predictions, "--compare": given.compare or None}
    names = [name for name, value in what.items() if value is not None]
    if len(names) > 1:
        raise InputError(f"{' and '.join(names)} do not go together: one says what is scored.")
    if not names and (given.config is None or not Path(given.config).is_dir()):
        found = f" {given.config} is no folder.{instead_of(given.config)}" if given.config else ""
        raise InputError(f"nothing to score: give CONFIG and CHECKPOINT, a run, --predictions or --compare.{found}")
    if len(given.compare) == 1:
        raise InputError("--compare needs at least two runs, network files or prediction folders.")


def _config(given: Any, compare: Sequence[str]) -> Config:
    """The config, or that of the first run to compare, with everything that a command line changes."""
    changes = list(given.cfg_options)
    if given.dataset_root is not None:
        changes.append(f"dataset.root={json.dumps(given.dataset_root)}")
    elif given.dataset is not None:
        raise InputError("--dataset needs --dataset-root: the folder that holds the set.")
    if given.dataset is not None and given.config is None:
        # Nothing is trained: the method and its network are placeholders, which no one builds.
        base = {"method": "supervised", "student": {"source": "saved", "checkpoint": "none"}}
        values: dict[str, Any] = base | {"dataset": {"type": given.dataset}}
        for change in changes:
            apply_override(values, change)
        return parse_config(values, where="command line")
    if given.dataset is not None:
        changes.append(f"dataset.type={json.dumps(given.dataset)}")
    path = given.config or _config_of_first(compare)
    if path is None:
        raise InputError("no data set: give CONFIG, or --dataset TYPE with --dataset-root DIR.")
    file = run_config(path) if Path(path).is_dir() else Path(path)
    if file is None:
        raise InputError(f"{path} is no run directory: it has no config.yaml.")
    return load_config(file, changes)


def _source(config: Config, given: Any, known: dict[str, Any]) -> Source:
    if given.predictions is not None:
        return open_predictions(config, given.predictions)
    role, checkpoint = given.role, given.checkpoint
    if checkpoint is None:
        if role in (None, config.trained_role):
            return open_source(config, given.config, **known)
        if role == "student":
            raise InputError(f"{given.config} trained a teacher and has no student. Leave --role out.")
        return teacher_of(config, _config_of_first([given.config]), given.trust)
    # A placeholder section has no architecture to offer; the file must know its own.
    if role is None and Path(checkpoint).is_file() and given.config is not None:
        role = role_of(config, checkpoint)
    return open_source(config, checkpoint, role=role, **known)


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
