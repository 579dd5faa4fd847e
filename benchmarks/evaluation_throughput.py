"""How fast predictions are counted, and a whole CamVid split is scored, beside what people otherwise use.

    python benchmarks/evaluation_throughput.py --data CamVid [--json FILE]

Everything runs in one process on the same predictions; the candidates take turns, and the table has the median of the
turns. Every candidate's numbers are compared before they are timed.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from dfad_seg.common.files import write_json
from dfad_seg.common.labels import labels_of
from dfad_seg.config import parse_config
from dfad_seg.datasets import CAMVID, build_dataset
from dfad_seg.evaluation import ConfusionMatrix, Inference, evaluate_miou, metrics_from_confusion
from dfad_seg.recipes import evaluate
from dfad_seg.segmentors import Segmentor, build_segmentor, load_segmentor

CLASSES = CAMVID.num_classes
STUDENT = {"source": "smp", "arch": "DeepLabV3Plus", "encoder_name": "tu-mobilenetv3_small_100", "decoder_channels": 64}
Counts = Callable[[], np.ndarray]


def numpy_histogram(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The idiom of most segmentation repositories."""
    kept = (truth >= 0) & (truth < CLASSES)
    codes = CLASSES * truth[kept].astype(int) + prediction[kept]
    return np.bincount(codes, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def accumulators(predictions: list[np.ndarray], truths: list[np.ndarray]) -> dict[str, Counts | str]:
    """Name → a function that counts all images, or why there is none."""
    pairs = list(zip(predictions, truths, strict=True))
    wide = [(torch.from_numpy(p.astype(np.int64)), torch.from_numpy(t.astype(np.int64))) for p, t in pairs]
    narrow = [(torch.from_numpy(p), torch.from_numpy(t)) for p, t in pairs]

    def ours(pairs: list[tuple[torch.Tensor, torch.Tensor]], batch: int) -> Counts:
        batches = [
            tuple(torch.stack(part) for part in zip(*pairs[i : i + batch], strict=True))
            for i in range(0, len(pairs), batch)
        ]

        def count() -> np.ndarray:
            matrix = ConfusionMatrix(CLASSES)
            for prediction, truth in batches:
                matrix.update(prediction, truth)
            return matrix.compute().numpy()

        return count

    def by_numpy() -> np.ndarray:
        total = np.zeros((CLASSES, CLASSES), dtype=np.int64)
        for prediction, truth in wide:
            total += numpy_histogram(prediction.numpy(), truth.numpy())
        return total

    found: dict[str, Counts | str] = {
        "numpy bincount, int64": by_numpy,
        "dfad_seg, uint8, batches of 8": ours(narrow, 8),
        "dfad_seg, uint8, single images": ours(narrow, 1),
        "dfad_seg, int64, single images": ours(wide, 1),
    }
    try:
        from torchmetrics.classification import MulticlassConfusionMatrix
    except ImportError:
        found["torchmetrics, int64"] = "not installed"
    else:

        def by_torchmetrics() -> np.ndarray:
            metric = MulticlassConfusionMatrix(CLASSES, ignore_index=255)
            for prediction, truth in wide:
                metric.update(prediction[None], truth[None])
            return metric.compute().numpy()

        found["torchmetrics, int64"] = by_torchmetrics
    try:
        from mmseg.evaluation import IoUMetric
    except ImportError:
        found["mmseg IoUMetric, int64"] = "not installed"
    else:

        def by_mmseg() -> np.ndarray:
            metric = IoUMetric()
            metric.dataset_meta = {"classes": CAMVID.classes}
            for prediction, truth in wide:
                metric.process({}, [{"pred_sem_seg": {"data": prediction[None]}, "gt_sem_seg": {"data": truth[None]}}])
            areas = [sum(parts) for parts in zip(*metric.results, strict=True)]
            return np.stack([areas[i].long().numpy() for i in (0, 3, 2)])

        found["mmseg IoUMetric, int64"] = by_mmseg
    return found


class PlainImages(Dataset):
    """A data set as people write one."""

    def __init__(self, root: Path) -> None:
        self.images = sorted((root / "test").iterdir())
        self.masks = sorted((root / "testannot").iterdir())

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = np.array(Image.open(self.images[index]).convert("RGB"))
        mask = np.array(Image.open(self.masks[index])).astype(np.int64)
        mask[mask == 11] = 255
        return torch.from_numpy(image.transpose(2, 0, 1)).float() / 255, torch.from_numpy(mask)


def plain_evaluation(root: Path, network: Segmentor, precision: str) -> np.ndarray:
    """A loop as people write one: the default loader, one image at a time."""
    total = np.zeros((CLASSES, CLASSES), dtype=np.int64)
    mode = Inference(precision=precision)
    with torch.no_grad():
        for images, masks in DataLoader(PlainImages(root), batch_size=1):
            with mode.autocast(torch.device("cpu")):
                logits = network(images)
            prediction = logits.argmax(1).numpy()
            for p, t in zip(prediction, masks.numpy(), strict=True):
                total += numpy_histogram(p, t)
    return total


def our_evaluation(root: Path, network: Segmentor, precision: str, batch_size: int, workers: int) -> Any:
    config = parse_config(
        {
            "method": "supervised",
            "student": STUDENT,
            "dataset": {"type": "camvid", "root": str(root)},
            "evaluation": {
                "split": "test", "batch_size": batch_size, "num_workers": workers, "precision": precision
            },
        }
    )  # fmt: skip
    return evaluate(config, network, device="cpu").metrics


def take_turns(candidates: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure_counting(root: Path, limit: int, repeats: int) -> list[dict[str, Any]]:
    dataset = build_dataset("camvid", root, "test")
    truths = [dataset.load_labels(index) for index in range(min(limit, len(dataset)))]
    rng = np.random.default_rng(0)
    predictions = []
    for truth in truths:
        # A network's errors have the shape of regions: labels from another place of the image, in patches.
        noise = rng.random((-(-truth.shape[0] // 12), -(-truth.shape[1] // 12)))
        wrong = noise.repeat(12, 0).repeat(12, 1)[: truth.shape[0], : truth.shape[1]] < 0.12
        moved = np.where(wrong, np.roll(truth, 40, axis=1), truth)
        predictions.append(np.where(moved == 255, 3, moved).astype(np.uint8))
    pixels = sum(truth.size for truth in truths)
    found = accumulators(predictions, truths)
    expected = metrics_from_confusion(torch.from_numpy(found["numpy bincount, int64"]()), CAMVID.classes)  # type: ignore[operator]
    ready = {name: run for name, run in found.items() if callable(run)}
    for name, run in ready.items():
        counts = run()
        if counts.shape == (3, CLASSES):
            hits, truth, predicted = counts
            same = np.array_equal(hits / (truth + predicted - hits), expected.iou, equal_nan=True)
        else:
            same = metrics_from_confusion(torch.from_numpy(counts), CAMVID.classes) == expected
        if not same:
            sys.exit(f"{name} counts something else")
    seconds = take_turns(ready, repeats)
    rows: list[dict[str, Any]] = []
    for name, run in found.items():
        row: dict[str, Any] = {"what": "counting", "candidate": name}
        if callable(run):
            row |= {"seconds": seconds[name], "megapixels_per_s": pixels / seconds[name] / 1e6}
        else:
            row["note"] = run
        rows.append(row)
    return rows


def measure_evaluation(
    root: Path, limit: int, repeats: int, network: Segmentor, batch_size: int, workers: int
) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder)
        for name in ("test", "testannot"):
            (part / name).mkdir()
            for file in sorted((root / name).iterdir())[:limit]:
                (part / name / file.name).symlink_to(file.resolve())
        images = len(list((part / "test").iterdir()))
        # Each has a network of its own, as ours changes the memory layout.
        plain, ours = network.eval(), _copy(network)
        for precision in ("fp32", "bf16"):
            candidates: dict[str, Callable[[], Any]] = {
                "plain PyTorch loop": lambda precision=precision: plain_evaluation(part, plain, precision),
                "dfad_seg": lambda precision=precision: our_evaluation(part, ours, precision, batch_size, workers),
            }
            first = metrics_from_confusion(torch.from_numpy(candidates["plain PyTorch loop"]()), CAMVID.classes)
            second = candidates["dfad_seg"]()
            gap = abs(first.aAcc - second.aAcc)
            if gap > (1e-4 if precision == "fp32" else 1e-2):
                sys.exit(f"the two evaluations differ: {first.aAcc} and {second.aAcc}")
            for name, seconds in take_turns(candidates, repeats).items():
                rows.append(
                    {
                        "what": f"evaluation, {precision}",
                        "candidate": name,
                        "seconds": seconds,
                        "images_per_s": images / seconds,
                    }
                )
    return rows


def measure_labels(repeats: int) -> list[dict[str, Any]]:
    scores = torch.randn(4, CLASSES, 360, 480, generator=torch.Generator().manual_seed(0))
    assert torch.equal(labels_of(scores).long(), scores.argmax(1))
    seconds = take_turns({"torch argmax": lambda: scores.argmax(1), "dfad_seg": lambda: labels_of(scores)}, repeats)
    pixels = scores.numel() / CLASSES / 1e6
    return [
        {"what": "label map of logits", "candidate": name, "seconds": value, "megapixels_per_s": pixels / value}
        for name, value in seconds.items()
    ]


def measure_denormals(repeats: int) -> list[dict[str, Any]]:
    """A convolution whose weights have decayed below 1e-38, in a loop as people write one and in an evaluation."""
    network = torch.nn.Conv2d(3, CLASSES, 7, padding=3, bias=False)
    with torch.no_grad():
        network.weight.mul_(2.0**-130)
    images, masks = torch.rand(1, 3, 180, 240), torch.zeros(1, 180, 240, dtype=torch.uint8)
    torch.set_flush_denormal(False)

    def plain() -> None:
        with torch.no_grad():
            network(images).argmax(1)

    ours = lambda: evaluate_miou(network, [{"image": images, "mask": masks}], num_classes=CLASSES)  # noqa: E731
    seconds = take_turns({"plain PyTorch": plain, "dfad_seg": ours}, repeats)
    return [
        {"what": "denormal weights", "candidate": name, "seconds": value, "images_per_s": 1 / value}
        for name, value in seconds.items()
    ]


def _copy(network: Segmentor) -> Segmentor:
    other = build_segmentor(**network.spec) if network.spec else build_segmentor(num_classes=CLASSES, **STUDENT)
    other.load_state_dict(network.state_dict())
    return other.eval()


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown; the last column is the speed relative to the block's first row."""
    lines = ["| what | candidate | seconds | per second | relative |", "| --- | --- | ---: | ---: | ---: |"]
    base: dict[str, float] = {}
    for row in rows:
        if "note" in row:
            lines.append(f"| {row['what']} | {row['candidate']} | {row['note']} | | |")
            continue
        first = base.setdefault(row["what"], row["seconds"])
        speed = (
            f"{row['megapixels_per_s']:.0f} MP" if "megapixels_per_s" in row else f"{row['images_per_s']:.2f} images"
        )
        lines.append(
            f"| {row['what']} | {row['candidate']} | {row['seconds']:.3f} | {speed} | {first / row['seconds']:.2f}x |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="CamVid in the layout of the SegNet tutorial")
    parser.add_argument("--checkpoint", help="a network that dfad_seg saved (default: an untrained small student)")
    parser.add_argument("--images", type=int, default=233, help="of the test split")
    parser.add_argument("--repeats", type=int, default=7, help="turns of the counting; the evaluation takes a third")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", choices=["counting", "evaluation"])
    parser.add_argument("--json", help="write the rows")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rows = []
    if arguments.only != "evaluation":
        rows += measure_counting(arguments.data, arguments.images, arguments.repeats)
        rows += measure_labels(arguments.repeats) + measure_denormals(arguments.repeats)
    if arguments.only != "counting":
        saved = arguments.checkpoint
        network = load_segmentor(saved) if saved else build_segmentor(num_classes=CLASSES, **STUDENT)
        turns = max(1, arguments.repeats // 3)
        rows += measure_evaluation(
            arguments.data, arguments.images, turns, network, arguments.batch_size, arguments.workers
        )
    print(table(rows))
    if arguments.json:
        load = os.getloadavg()[0]
        about = {"cores": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__, "load": load}
        write_json(
            arguments.json, {"about": about, "options": {k: str(v) for k, v in vars(arguments).items()}, "rows": rows}
        )


if __name__ == "__main__":
    main()
