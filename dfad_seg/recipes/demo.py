"""The demo: a teacher is trained on drawn street scenes, then compressed without a single training image."""

from collections.abc import Sequence
from pathlib import Path

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_json
from dfad_seg.common.reading import file_hash
from dfad_seg.config import Config, dump_config, load_config
from dfad_seg.datasets import write_street_scenes
from dfad_seg.evaluation import SegmentationMetrics, align, percent
from dfad_seg.recipes.evaluate import evaluate
from dfad_seg.recipes.sources import load_role
from dfad_seg.recipes.train import train
from dfad_seg.runs import Run, note_score
from dfad_seg.runs.directory import check_folder
from dfad_seg.runs.records import Score
from dfad_seg.segmentors import count_parameters

COUNTS = {"train": 600, "val": 60, "test": 120}
STAGES = {
    "teacher": ("teacher", "street_scenes/teacher"),
    "cut": ("cut student", "street_scenes/cut_50"),
    "student": ("student", "street_scenes/demo"),
    "random_noise": ("random noise", "street_scenes/random_noise"),
}
"""By folder: the title, and the config."""


def run_demo(work_dir: str | Path, *, cfg_options: Sequence[str] = ()) -> None:
    """Draw the data, train the teacher, distil two students and the random-noise control, score all, print the table.

    A stage that is finished in `work_dir` is kept and an interrupted one is continued: the command can be repeated.
    """
    work_dir = Path(work_dir)
    data = [f"dataset.root={work_dir / 'data'}", *cfg_options]
    teacher_file = [f"teacher.checkpoint={work_dir / 'teacher' / 'teacher.pt'}"]
    stages = {
        name: load_config(config, data + (teacher_file if name != "teacher" else []))
        for name, (_, config) in STAGES.items()
    }
    write_street_scenes(work_dir / "data", size=stages["teacher"].image_size, counts=COUNTS)
    scores: dict[str, SegmentationMetrics] = {}
    parameters: dict[str, int] = {}
    for name, config in stages.items():
        file = train_once(config, work_dir / name, command=f"make demo (stage {name})")
        network, title = load_role(config, config.trained_role, file), STAGES[name][0]
        parameters[name] = count_parameters(network)
        scores[title] = found = evaluate(config, network, split="test", title=f"scoring the {title}").metrics
        if Run(work_dir / name).score(config.trained_role, split="test") is None:
            which = {"network": config.trained_role, "weights": "ema" if config.ema_decay else "last", "split": "test"}
            note_score(work_dir / name, Score.measured(found.to_dict(), **which))
    _tell(work_dir, scores, parameters)


def train_once(config: Config, run: Path, *, command: str) -> Path:
    """The trained network's file of a run; trains, or goes on training, if it is not there yet."""
    file = run / f"{config.trained_role}.pt"
    if not file.exists():
        return train(config, run, resume="auto", command=command)
    check_folder(run, dump_config(config), resume=True)
    record = Run(run).provenance
    teacher = None if record is None else record.teacher
    if teacher is not None and teacher.checkpoint and teacher.file_sha256 != file_hash(teacher.checkpoint):
        raise InputError(f"{run} was distilled from another teacher. Delete that folder to run the stage again.")
    print(f"{run}: finished earlier, kept. Delete the folder to run it again.", flush=True)
    return file


def _tell(work_dir: Path, scores: dict[str, SegmentationMetrics], parameters: dict[str, int]) -> None:
    write_json(work_dir / "results.json", {name: metrics.to_dict() for name, metrics in scores.items()})
    rows = [["IoU", *scores]]
    classes = next(iter(scores.values())).classes
    rows += [[name, *(percent(of.iou[i]) for of in scores.values())] for i, name in enumerate(classes)]
    totals = [[key, *(percent(getattr(of, key)) for of in scores.values())] for key in ("mIoU", "mAcc", "aAcc")]
    teacher, *others = (scores[title].mIoU for title, _ in STAGES.values())
    cut, student, noise = (f"{miou / teacher:.0%}" for miou in others)
    print("\nIoU on the street scenes' test split, none of which any network was trained on:\n")
    print(align(rows, totals))
    print(
        f"\nNeither student saw an image of the data set. The one that was cut out of the teacher has"
        f" {parameters['cut']:,} of its {parameters['teacher']:,}\n"
        f"parameters and half of its cost, and keeps {cut} of its mIoU. The small one, from random weights, has"
        f" {parameters['student']:,} parameters\n"
        f"and keeps {student}; distilled on random noise instead, {noise}."
    )
    print(f"  {work_dir / 'student' / 'report.html'}: how the distillation went, with what the generator made")
    print(f"  {work_dir / 'results.json'}: all numbers")
