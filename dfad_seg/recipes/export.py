"""Write a trained network in a format for others; score and time what was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfad_seg.common.environment import cpu_name
from dfad_seg.common.errors import InputError, choose
from dfad_seg.common.files import check_target, write_json
from dfad_seg.common.reading import read_json
from dfad_seg.common.speed import measure_latency
from dfad_seg.config import Config
from dfad_seg.exporting import DEFAULT_SIZE, FORMATS, Exported, OnnxNetwork, export, export_int8
from dfad_seg.recipes.build import build_teacher, meta_info
from dfad_seg.recipes.calibration import generated_images
from dfad_seg.recipes.evaluate import evaluate
from dfad_seg.recipes.evaluate_command import resolve_experiment
from dfad_seg.recipes.provenance import command_line
from dfad_seg.recipes.sources import refuse_code, run_config
from dfad_seg.segmentors import (
    Segmentor,
    count_parameters,
    file_sha256,
    load_segmentor,
    optimize_for_distillation,
)

CALIBRATION_IMAGES = 64
_PROVENANCE = ("method", "seed", "real_images_used_for_training", "dfad_seg", "git_commit")


@dataclass(frozen=True)
class Scoring:
    """The labelled images that networks are scored on; `batch_size` None: the config's."""

    config: Config
    split: str
    batch_size: int | None = None

    def __call__(self, answer: Callable[[Tensor], Tensor], title: str) -> float:
        """mIoU in [0, 1], which is printed as well."""
        miou = evaluate(
            self.config, answer, split=self.split, batch_size=self.batch_size, device="cpu", title=f"scoring {title}"
        ).mIoU
        print(f"mIoU on {self.split}: {100 * miou:.3f} %, {title}", flush=True)
        return miou


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
    """`dfad-seg export`; returns the exit code.

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
        trust: the network file, and for the table the run's teacher, may name code.
        base: for mmseg: a config of MMSegmentation to take data sets, pipelines and metrics from.

    Raises:
        InputError: anything wrong with the arguments or the files; found before anything is written where it can be.
    """
    chosen = choose(FORMATS, format, "export format")
    if int8 and format != "onnx":
        raise InputError(f"--int8 goes with --format onnx, not {format}.")
    if base is not None and format != "mmseg":
        raise InputError(f"--base goes with --format mmseg, not {format}.")
    if calibration_images < 1:
        raise InputError(f"--calibration-images {calibration_images}: a number above 0 is needed.")
    file = network_file(source)
    path = Path(out) if out is not None else file.parent / chosen.name.replace("student", file.stem)
    target = path.with_name(f"{path.stem}_int8{path.suffix}")
    check_target(path, "--out", folder=chosen.is_folder)
    for name, other in (("--int8", target if int8 else None), ("--table", table)):
        if other is not None:
            check_target(other, name)
    network = load_segmentor(file, trust=trust)
    scoring = _scoring(file, config, dataset, dataset_root, split, overrides)
    if scoring is not None and not dynamic:
        scoring = replace(scoring, batch_size=1)
    height_width = size or DEFAULT_SIZE
    images = None
    if int8:
        # Before anything is written: a run without a generator ends here.
        images = generated_images(
            file.parent, calibration_images, num_classes=network.num_classes, size=None if dynamic else height_width
        )
    given: dict[str, Any] = {"dynamic": dynamic, "size": height_width, "base": base}
    options = {name: value for name, value in given.items() if name in chosen.options.__dataclass_fields__}
    written = [export(network, path, format=format, origin=_origin(file), **options)]
    print(written[0].report(), flush=True)
    if images is not None:
        batches = (image[None] for batch in images for image in batch) if not dynamic else images
        written.append(export_int8(path, target, batches, segmentor=network))
        print(written[1].report(), flush=True)
    scores: dict[str, float] = {}
    if scoring is not None:
        scores["network"] = scoring(network, "the network")
        if chosen.load is not None:
            scores |= {made.format: scoring(chosen.load(made.path), made.format) for made in written}
    if table is not None:
        networks = {"teacher": _teacher(file, trust=trust), file.stem: network}
        rows = _rows(networks, written, height_width, scoring, scores)
        about = {"size": height_width, "batch": 1, "threads": torch.get_num_threads(), "device": cpu_name()}
        about |= {"command": command_line(), "split": scoring.split if scoring else None}
        write_json(table, about | {"rows": rows})
        print(f"\n{_markdown(rows)}\n\ntable: {table}")
    return 0


def network_file(source: str | Path) -> Path:
    """The network of a run directory, or the file itself.

    Raises:
        InputError: a run directory without one.
    """
    path = Path(source)
    if not path.is_dir():
        return path
    file = next((path / name for name in ("student.pt", "teacher.pt") if (path / name).is_file()), None)
    if file is None:
        raise InputError(
            f"{path} has no student.pt or teacher.pt: it is no run directory, or its run has not finished."
        )
    return file


def _origin(path: Path) -> dict[str, Any]:
    """What the metadata says about where the network comes from: hashes, and the run's provenance."""
    origin: dict[str, Any] = {"source_sha256": file_sha256(path)}
    file = path.parent / "provenance.json"
    if run_config(path) is not None and file.is_file():
        values = read_json(file, "provenance")
        if isinstance(values, Mapping):
            origin["provenance"] = {key: values[key] for key in _PROVENANCE if key in values}
            origin["provenance_sha256"] = file_sha256(file)
    return origin


def _scoring(
    file: Path,
    config: str | None,
    dataset: str | None,
    dataset_root: str | None,
    split: str | None,
    overrides: Sequence[str],
) -> Scoring | None:
    if not any((config, dataset, dataset_root, split)):
        return None
    if config is None and dataset is None:
        found = run_config(file)
        if found is None:
            raise InputError(f"{file.parent} is no run directory with a data set: give --config or --dataset.")
        config = str(found)
    resolved, _ = resolve_experiment(config, (), overrides, dataset, dataset_root)
    if resolved.dataset is None:
        raise InputError(f"{config} has no dataset to score on. Give --dataset TYPE --dataset-root DIR.")
    if split is None:
        split = resolved.evaluation.split if resolved.evaluation is not None else "test"
    return Scoring(resolved, split)


def _rows(
    networks: Mapping[str, Segmentor | None],
    written: Sequence[Exported],
    size: tuple[int, int],
    scoring: Scoring | None,
    scores: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Size, latency and mIoU of each network in each runtime; the last of the networks is the exported one."""
    rows: list[dict[str, Any]] = []

    def add(precision: str, megabytes: float, call: Any, miou: float | None, runtime: str = "PyTorch") -> None:
        time = measure_latency(call, size)
        rows.append(
            {"model": name, "runtime": runtime, "precision": precision, "parameters": parameters,
             "megabytes": megabytes, **asdict(time), "scattered": time.scattered, "miou": miou}
        )  # fmt: skip

    for name, network in networks.items():
        if network is None:
            continue
        # With BatchNorm folded and channels last as one would deploy it.
        parameters, fast = count_parameters(network), optimize_for_distillation(network, size, trainable=False)
        if not any(isinstance(module, torch.jit.ScriptModule) for module in fast.modules()):
            fast = fast.to(memory_format=torch.channels_last)
        miou = miou16 = None
        if scoring is not None:
            miou = scores["network"] if name != "teacher" else scoring(network, "the teacher")
            miou16 = scoring(_in_bf16(fast), f"the {name} in bf16")
        add("fp32", 4 * parameters / 1e6, fast, miou)
        add("bf16", 2 * parameters / 1e6, _in_bf16(fast), miou16)
    for made in written:
        if made.path.suffix == ".onnx":
            precision = "int8" if made.format.endswith("int8") else "fp32"
            run, miou = OnnxNetwork(made.path), scores.get(made.format)
            add(precision, made.num_bytes / 1e6, run, miou, "ONNX Runtime")
    return rows


def _in_bf16(network: nn.Module) -> Callable[[Tensor], Any]:
    """A network under bf16 autocast on the CPU."""

    def answer(images: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return network(images)

    return answer


def _teacher(file: Path, *, trust: bool) -> Segmentor | None:
    """The teacher of the network's run, or None where there is none, or its file has gone elsewhere."""
    found = run_config(file)
    if found is None or file.stem == "teacher":
        return None
    try:
        config, _ = resolve_experiment(str(found), (), (), None, None)
        refuse_code(config.teacher, "teacher", trust=trust)
        return None if config.teacher is None else build_teacher(config, meta_info(config))
    except InputError as error:
        print(f"the table is without the teacher: {error}")
        return None


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["model", "runtime", "precision", "parameters", "MB", "ms per image", "median", "mIoU"]
    lines = [head, ["---"] * 3 + ["---:"] * 5]
    for row in rows:
        time = f"{row['fastest']:.1f}" + (" (passes scatter)" if row["scattered"] else "")
        miou = "–" if row["miou"] is None else f"{100 * row['miou']:.2f}"
        sizes = [f"{row['parameters'] / 1e6:.2f} M", f"{row['megabytes']:.2f}", time, f"{row['median']:.1f}"]
        lines.append([row["model"], row["runtime"], row["precision"], *sizes, miou])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
