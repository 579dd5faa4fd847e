"""The report of a run: one HTML file that needs nothing else, made from the run directory as it stands."""

import base64
import io
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_text
from dfad_seg.common.values import plain
from dfad_seg.runs.charts import DARK, LIGHT, Curve, curves_svg, style
from dfad_seg.runs.directory import flat
from dfad_seg.runs.records import Provenance, Summary, Weights
from dfad_seg.runs.run import DATA_FREE, Run
from dfad_seg.runs.tables import agreement_table, class_table, headline, network_table, percent

SHOWN_GRIDS = 4
"""Pictures of generated images: the first, the last, and others evenly between."""
MOST_PIXELS = 40_000_000
METHODS = {
    "supervised": "Training on labels",
    "distill_with_data": "Distillation on real images (a control)",
    "dfad": "Data-free adversarial distillation",
    "random_noise": "Distillation on random noise (a control)",
    "transfer": "Distillation on generated and on real images",
}

Judge = Callable[[Run], Sequence[str] | None]
"""Sentences on what looks unhealthy; None where there is too little to judge by."""
T = TypeVar("T")


def write_report(run: str | Path, judge: Judge | None = None) -> Path:
    """Write `report.html` into a run directory; what of it cannot be read is said in there."""
    import jinja2  # after --help

    template = (Path(__file__).parent / "report.html").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(template)
    out = Path(run) / "report.html"
    content = report_content(Run(run), judge)
    write_text(out, page.render(content, light=style(LIGHT), dark=style(DARK)))
    return out


def report_content(run: Run, judge: Judge | None = None) -> dict[str, Any]:
    """What the template shows, by its names; text is not escaped yet."""
    problems: list[str] = []

    def read(get: Callable[[], T], otherwise: T) -> T:
        try:
            return get()
        except InputError as error:
            problems.append(str(error))
            return otherwise

    summary, record = read(lambda: run.summary, None), read(lambda: run.provenance, None)
    nothing: list[dict[str, Any]] = []
    lines = read(lambda: run.lines, nothing)
    whole = not problems
    warnings = read(lambda: judge(run), None) if judge and whole else None
    trained = read(lambda: run.score(summary.role), None) if summary and lines else None
    teacher = run.score("teacher") if summary and summary.role == "student" else None
    beside: dict[str, Weights] = {"as cut": "start", "last weights": "last"}
    others = {k: run.score(summary.role, weights=w) for k, w in beside.items() if summary and w != summary.selected}
    told = _told(run.events if lines else [])
    facts = flat(plain(record)) if record else {}
    facts = {key: value for key, value in facts.items() if value not in ("", "[]") and len(str(value)) < 2000}
    data_free, claim = _claim(run.method, record)
    method = METHODS.get("transfer" if run.config.get("transfer_images") else run.method, run.method)
    return {
        "title": f"{method}: {run.path.resolve().name}",
        "finished": run.network is not None,
        "status": _status(run, summary, lines),
        "data_free": data_free,
        "claim": claim,
        "tiles": headline(summary, trained, teacher),
        "warnings": [*(warnings or []), *told],
        "healthy": "Nothing looks unhealthy." if warnings is not None and not told else "",
        "networks": network_table(summary),
        "classes": class_table(trained, teacher, others),
        "agreement": agreement_table(summary),
        "generated": _embedded((file, f"iteration {step:,}") for step, file in evenly(run.generated, SHOWN_GRIDS)),
        "sheet": _embedded(_sheet(run, summary)),
        "examples": _embedded(_examples(run, summary)),
        "charts": _charts(run, summary) if lines else [],
        "next": _next(run, summary),
        "provenance": facts,
        "config": run.config_text,
        "problems": problems,
    }


def evenly(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, first and last among them, or all if there are no more."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _status(run: Run, summary: Summary | None, lines: Sequence[Mapping[str, Any]]) -> str:
    total = summary.iterations if summary else 0
    spent = f" in {timedelta(seconds=round(lines[-1]['elapsed_s']))}" if lines else ""
    if run.network is not None:
        return f"Finished: {total:,} iterations{spent}."
    return f"Not finished: {max((line['step'] for line in lines), default=0):,} of {total:,} iterations{spent}."


def _claim(method: str, record: Provenance | None) -> tuple[bool, str]:
    """Whether no real image was read for training, and what this rests on: three records must agree."""
    if record is None:
        return False, "There is no provenance record, so nothing can be said about the images that were read."
    training = [use for use in record.real_images if use.purpose == "training"]
    if training and record.real_images_used_for_training:
        return False, f"Real images were read for training: {_uses(training)}."
    if training or record.real_images_used_for_training or not {method, record.method} <= set(DATA_FREE):
        return False, "The records contradict each other about real training images; do not rely on them."
    uses = f"Real images were read for evaluation only: {_uses(record.real_images)}." if record.real_images else ""
    began = [value for key, value in record.trained_from.items() if "sha256" not in key]
    files = {value for key, value in record.trained_from.items() if "sha256" in key}
    whose = "of the teacher" if record.teacher and files == {record.teacher.file_sha256} else "from elsewhere"
    weights = f" The student began with weights {whose}: {', '.join(began)}." if began else ""
    return True, f"No real image was read for training. {uses or 'None was read at all.'}{weights}"


def _uses(uses: Iterable[Any]) -> str:
    return "; ".join(f"{use.dataset}, {use.split} split" for use in uses)


def _told(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """What training noticed, in sentences."""
    when = ((event, event.get("found_at", event["step"])) for event in events)
    what = ((at, event["event"].replace("_", " "), event.get("cause", "").rstrip(".")) for event, at in when)
    return [f"Noted in iteration {at}: {name}{': ' if cause else ''}{cause}." for at, name, cause in what]


def _sheet(run: Run, summary: Summary | None) -> Iterable[tuple[Path, str]]:
    file = run.picture("pictures/generator.png")
    if file is not None:
        seen = [f"{name} {percent(value, 0)}" for name, value in (summary.seen if summary else {}).items()]
        shares = f" Seen as asked: {', '.join(seen)}." if seen else ""
        yield file, f"From top to bottom: generated image, its layout, what the teacher predicts.{shares}"


def _examples(run: Run, summary: Summary | None) -> Iterable[tuple[Path, str]]:
    for example in summary.examples if summary else ():
        file = run.picture(example.file)
        if file is not None:
            teacher = "" if example.teacher_miou is None else f" (teacher {percent(example.teacher_miou)})"
            yield file, f"{example.kind}: {example.name}, mIoU {percent(example.miou)}{teacher}"


def _embedded(pictures: Iterable[tuple[Path, str]]) -> list[tuple[str, str]]:
    """(caption, WebP in base 64), which has a sixth of a PNG's size; what is no picture of ours is left out."""
    found = []
    for file, caption in pictures:
        buffer = io.BytesIO()
        try:
            with Image.open(file, formats=["PNG"]) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    continue
                picture.convert("RGB").save(buffer, "WEBP", quality=88)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
        found.append((caption, base64.b64encode(buffer.getvalue()).decode()))
    return found


def _charts(run: Run, summary: Summary | None) -> list[tuple[str, str]]:
    curves = _curves(run.records)
    split = summary.split if summary else None

    def pick(*ends: str, start: str = "train/") -> dict[str, Curve]:
        keys = sorted(key for key in curves if key.startswith(start) and key.endswith(ends))
        return {key.removeprefix("train/").replace("_", " "): curves[key] for key in keys}

    charts: list[tuple[str, dict[str, Curve], dict[str, bool]]] = [
        ("scores on the way", pick("/mIoU", "/aAcc", start=f"{split}/" if split else ""), {"share": True}),
        *((name, {name: curve}, {"smooth": True}) for name, curve in pick("loss").items()),
        ("agreement with the teacher", pick("_agreement"), {"share": True}),
        ("teacher's predictions on generated images", pick("_class_entropy", "_largest_class"), {"share": True}),
        ("learning rates", pick("_lr"), {}),
    ]
    return [(title, curves_svg(title, lines, **options)) for title, lines, options in charts if lines]


def _curves(records: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """By key; of two values for one step the later counts."""
    points: dict[str, dict[float, float]] = {}
    for record in records:
        for key, value in record.items():
            if "/" in key and value is not None:
                points.setdefault(key, {})[record["step"]] = float(value)
    ordered = {key: sorted(values.items()) for key, values in points.items()}
    return {key: ([step for step, _ in pairs], [value for _, value in pairs]) for key, pairs in ordered.items()}


def _next(run: Run, summary: Summary | None) -> list[tuple[str, str]]:
    folder = shlex.quote(str(run.path))
    if run.network is None:
        return [("go on with it", f"dfad-seg train {folder}/config.yaml --work-dir {folder} --resume")]
    steps = [("write it as ONNX", f"dfad-seg export {folder} --format onnx")]
    if summary and summary.scores:
        split = "all" if summary.split == "all" else "test"  # all: there is no other
        steps.insert(0, (f"score it on the {split} split", f"dfad-seg eval {folder} --split {split}"))
    return [*steps, ("use it in Python", f"dfad_seg.load_segmentor({str(run.network)!r})(images)")]
