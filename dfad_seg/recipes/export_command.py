"""What `tools/export_student.py` does once its arguments are parsed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfad_seg.common.environment import cpu_name
from dfad_seg.common.errors import InputError, choose
from dfad_seg.common.files import write_json
from dfad_seg.config import Config
from dfad_seg.export import DEFAULT_SIZE, FORMATS, Exported, ExportOptions, OnnxNetwork, export, export_int8
from dfad_seg.export.latency import Row, in_bf16, markdown, measure, record
from dfad_seg.recipes.build import build_teacher, meta_info
from dfad_seg.recipes.calibration import generated_images
from dfad_seg.recipes.evaluate import evaluate
from dfad_seg.recipes.evaluate_command import resolve_experiment
from dfad_seg.recipes.provenance import command_line
from dfad_seg.recipes.sources import run_config
from dfad_seg.segmentors import (
    Segmentor,
    count_parameters,
    file_sha256,
    load_segmentor,
    optimize_for_distillation,
    read_segmentor_file,
)

CALIBRATION_IMAGES = 64


@dataclass(frozen=True)
class Model:
    """A network to export, with what its file and its run say of it."""

    path: Path
    segmentor: Segmentor
    palette: tuple[tuple[int, int, int], ...] | None
    origin: dict[str, Any]

    @property
    def run(self) -> Path:
        """The folder of its run, if it is in one."""
        return self.path.parent


@dataclass(frozen=True)
class Scoring:
    """The labelled images that networks are scored on."""

    config: Config
    split: str
    batch_size: int | None = None
    """None: the config's."""

    def __call__(self, answer: Callable[[Tensor], Tensor], title: str) -> float:
        """mIoU in [0, 1]."""
        network = answer if isinstance(answer, nn.Module) else _Callable(answer)
        return evaluate(
            self.config, network, split=self.split, batch_size=self.batch_size, device="cpu", title=title
        ).mIoU


def export_from_arguments(
    *,
    source: str,
    format: str,
    out: str | None = None,
    dynamic: bool = True,
    size: tuple[int, int] | None = None,
    int8: bool = False,
    calibration_images: int = CALIBRATION_IMAGES,
    table: str | None = None,
    config: str | None = None,
    dataset: str | None = None,
    dataset_root: str | None = None,
    split: str | None = None,
    overrides: Sequence[str] = (),
    trust: bool = False,
    base: str | None = None,
) -> int:
    """`tools/export_student.py`; returns the exit code.

    Args:
        source: a run directory, or the network file of one.
        format: a key of `FORMATS`.
        out: the file or folder; default: beside the network file.
        dynamic: any image size.
        size: (H, W) in pixels.
        int8: for onnx: a second file in 8-bit integers.
        calibration_images: generated images that it is calibrated on.
        table: a JSON file for sizes and latencies, which are printed as well.
        config, dataset, dataset_root, overrides: the data set to score on, as in `tools/eval_miou.py`; default: the
            run's config.
        split: of the data set; nothing is scored without one of these.
        trust: the network file may name code.
        base: for mmseg: a config of MMSegmentation to take data sets, pipelines and metrics from.

    Raises:
        InputError: anything wrong with the arguments or the files.
    """
    chosen = choose(FORMATS, format, "export format")
    if int8 and format != "onnx":
        raise InputError(f"--int8 goes with --format onnx, not {format}.")
    if base is not None and format != "mmseg":
        raise InputError(f"--base goes with --format mmseg, not {format}.")
    if calibration_images < 1:
        raise InputError(f"--calibration-images {calibration_images}: a number above 0 is needed.")
    model = open_model(source, trust=trust)
    scoring = _scoring(model, config, dataset, dataset_root, split, overrides)
    if scoring is not None and not dynamic:
        scoring = replace(scoring, batch_size=1)
    options = ExportOptions(
        dynamic=dynamic, size=size or DEFAULT_SIZE, palette=model.palette, origin=model.origin, base=base
    )
    path = Path(out) if out is not None else model.run / chosen.name.replace("student", model.path.stem)
    images = None
    if int8:
        # Before anything is written: a run without a generator ends here.
        images = generated_images(
            model.run,
            calibration_images,
            num_classes=model.segmentor.num_classes,
            size=None if dynamic else options.size,
        )
    written = [export(model.segmentor, path, format=format, options=options)]
    print(written[0].report(), flush=True)
    if images is not None:
        target = path.with_name(f"{path.stem}_int8{path.suffix}")
        batches = (image[None] for batch in images for image in batch) if not dynamic else images
        written.append(export_int8(path, target, batches, segmentor=model.segmentor))
        print(written[1].report(), flush=True)
    scores = _score(model, chosen.load, written, scoring)
    if table is not None:
        rows = _rows(model, written, options.size, scoring, scores)
        print(f"\n{markdown(rows)}")
        described = {"device": cpu_name(), "command": command_line(), "split": scoring.split if scoring else None}
        write_json(table, record(rows, options.size) | described)
        print(f"\ntable: {table}")
    return 0


def open_model(source: str | Path, *, trust: bool = False) -> Model:
    """The network of a run directory or of a file that a run wrote.

    Raises:
        InputError: there is none, or it needs `trust`.
    """
    path = Path(source)
    if path.is_dir():
        names = ("student.pt", "teacher.pt")
        file = next((path / name for name in names if (path / name).is_file()), None)
        if file is None:
            raise InputError(
                f"{path} has no student.pt or teacher.pt: it is no run directory, or its run has not finished."
            )
        path = file
    content = read_segmentor_file(path)
    segmentor = load_segmentor(path, trust=trust)
    palette = content["palette"]
    colours = None if palette is None else tuple((int(r), int(g), int(b)) for r, g, b in palette)
    return Model(path, segmentor, colours, _origin(path))


def _origin(path: Path) -> dict[str, Any]:
    """What the metadata says about where the network comes from: hashes, and the run's provenance."""
    origin: dict[str, Any] = {"source_sha256": file_sha256(path)}
    file = path.parent / "provenance.json"
    if run_config(path) is not None and file.is_file():
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            return origin
        kept = ("method", "seed", "real_images_used_for_training", "dfad_seg", "git_commit")
        origin["provenance"] = {key: values[key] for key in kept if key in values}
        origin["provenance_sha256"] = file_sha256(file)
    return origin


def _scoring(
    model: Model,
    config: str | None,
    dataset: str | None,
    dataset_root: str | None,
    split: str | None,
    overrides: Sequence[str],
) -> Scoring | None:
    if not any((config, dataset, dataset_root, split)):
        return None
    if config is None and dataset is None:
        found = run_config(model.path)
        if found is None:
            raise InputError(f"{model.run} is no run directory with a data set: give --config or --dataset.")
        config = str(found)
    resolved, _ = resolve_experiment(config, (), overrides, dataset, dataset_root)
    if resolved.dataset is None:
        raise InputError(f"{config} has no dataset to score on. Give --dataset TYPE --dataset-root DIR.")
    if split is None:
        split = resolved.evaluation.split if resolved.evaluation is not None else "test"
    return Scoring(resolved, split)


def _score(
    model: Model, load: Callable[[Path], Any] | None, written: Sequence[Exported], scoring: Scoring | None
) -> dict[str, float]:
    """mIoU of the network, by the name "network", and of each file by its format."""
    if scoring is None:
        return {}
    scores = {"network": scoring(model.segmentor, "scoring the network")}
    print(f"mIoU on {scoring.split}: {100 * scores['network']:.3f} %, the network", flush=True)
    for file in written:
        if load is not None:
            scores[file.format] = scoring(load(file.path), f"scoring {file.format}")
            print(f"mIoU on {scoring.split}: {100 * scores[file.format]:.3f} %, {file.format}", flush=True)
    return scores


def _rows(
    model: Model,
    written: Sequence[Exported],
    size: tuple[int, int],
    scoring: Scoring | None,
    scores: dict[str, float],
) -> list[Row]:
    rows = []
    teacher = _teacher(model)
    if teacher is not None:
        rows += _torch_rows("teacher", teacher, size, scoring, None)
    role = model.path.stem
    rows += _torch_rows(role, model.segmentor, size, scoring, scores.get("network"))
    parameters = count_parameters(model.segmentor)
    for file in written:
        if file.path.suffix == ".onnx":
            precision = "int8" if file.format.endswith("int8") else "fp32"
            times = measure(OnnxNetwork(file.path), size)
            miou = scores.get(file.format)
            rows.append(Row(role, "ONNX Runtime", precision, parameters, file.num_bytes / 1e6, *times, miou))
    return rows


def _torch_rows(
    name: str, network: Segmentor, size: tuple[int, int], scoring: Scoring | None, miou: float | None
) -> list[Row]:
    """A network in PyTorch, fp32 and bf16, with BatchNorm folded and channels last as one would deploy it."""
    parameters = count_parameters(network)
    fast = optimize_for_distillation(network, size, trainable=False)
    if not any(isinstance(module, torch.jit.ScriptModule) for module in fast.modules()):
        fast = fast.to(memory_format=torch.channels_last)
    if scoring is not None and miou is None:
        miou = scoring(network, f"scoring the {name}")
    fp32 = Row(name, "PyTorch", "fp32", parameters, 4 * parameters / 1e6, *measure(fast, size), miou)
    answer = in_bf16(fast)
    miou = None if scoring is None else scoring(answer, f"scoring the {name} in bf16")
    return [fp32, Row(name, "PyTorch", "bf16", parameters, 2 * parameters / 1e6, *measure(answer, size), miou)]


def _teacher(model: Model) -> Segmentor | None:
    """The teacher of the network's run, or None where there is none, or its file has gone elsewhere."""
    found = run_config(model.path)
    if found is None or model.path.stem == "teacher":
        return None
    try:
        config, _ = resolve_experiment(str(found), (), (), None, None)
        return None if config.teacher is None else build_teacher(config, meta_info(config))
    except InputError as error:
        print(f"the table is without the teacher: {error}")
        return None


class _Callable(nn.Module):
    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Any:
        return self.answer(images)
