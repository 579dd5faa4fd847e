"""What a running experiment tells its run directory and its user, and how it hears that it should stop."""

import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.profiler import profile, schedule

from dfad_seg.common.environment import set_signal
from dfad_seg.common.errors import InputError, Stopped
from dfad_seg.common.progress import ProgressReport
from dfad_seg.config import Config
from dfad_seg.datasets import MetaInfo
from dfad_seg.distill import Hooks
from dfad_seg.distill.hooks import Evaluate
from dfad_seg.evaluation.pictures import write_png
from dfad_seg.recipes.finishing import health_of, refresh_report
from dfad_seg.recipes.pictures import generated_picture
from dfad_seg.runs import Run, RunDirectory

SHOWN = {
    "split/mIoU": "mIoU",
    "train/student_loss": "student loss",
    "train/generator_loss": "generator loss",
    "train/student_agreement": "agreement",
    "train/replay_agreement": "replay agreement",
}
"""In the line of progress."""
WARM_UP = 2
"""Iterations before the profiled ones: the first allocate memory and choose kernels."""


class StopSignals:
    """Ctrl-C, SIGTERM and SIGHUP ask the loop to save and stop; a second one stops at once.

    Outside the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> int:
        return self.number

    def __enter__(self) -> "StopSignals":
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup wants
        self._previous = {number: set_signal(number, self._remember) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            set_signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            raise Stopped(number)
        self.number = number


def build_hooks(
    config: Config,
    *,
    run: RunDirectory | None,
    identity: str,
    progress: ProgressReport,
    advance: Callable[[int], None],
    evaluate: Evaluate | None,
    stop_requested: StopSignals,
    info: MetaInfo,
) -> Hooks:
    """The loop's callbacks; without a run directory (ranks other than 0) they write nothing.

    `identity` goes into every checkpoint, see `resuming.identity_of`.
    """
    hooks = Hooks(
        evaluate=evaluate,
        advance=advance,
        stop_requested=stop_requested,
        log_every=config.log_every,
        evaluate_every=0 if config.evaluation is None else config.evaluation.every,
        save_every=config.save_every,
        preview_every=getattr(config, "preview_every", 0),
    )
    if run is None:
        return hooks
    latest: dict[str, float] = {}
    said: set[str] = set()
    split = f"{config.evaluation.split}/" if config.evaluation else "split/"

    def log(step: int, scalars: dict[str, float]) -> None:
        run.log(step, scalars)
        latest.update({name.replace(split, "split/"): value for name, value in scalars.items()})
        progress.note(", ".join(f"{SHOWN[name]} {value:.3f}" for name, value in latest.items() if name in SHOWN))
        if config.report == "full" and any(name.endswith("/mIoU") for name in scalars):
            refresh_report(run.path)

    def preview(step: int, images: Tensor, teacher_labels: Tensor, student_labels: Tensor) -> None:
        file = run.path / "pictures" / f"generated_{step:08d}.png"
        title = f"generated images after {step} iterations"
        write_png(file, generated_picture(images, teacher_labels, student_labels, title, info))
        run.tensorboard.picture("generated", step, file)
        if config.report == "full":
            refresh_report(run.path)

    def save(step: int, state: dict) -> None:
        run.save_checkpoint(state | {"experiment": identity})
        with suppress(InputError, OSError):  # neither a record that cannot be read nor a full terminal ends a training
            for sentence in health_of(Run(run.path)) or []:
                kind = re.sub(r"[\d.]+", "", sentence)
                if kind not in said:
                    print(f"warning, iteration {step}: {sentence}", file=sys.stderr, flush=True)
                said.add(kind)

    def event(step: int, record: dict[str, Any]) -> None:
        run.note(step, record)
        print(f"iteration {record['found_at']}: {record['event']}: {record['cause']}", file=sys.stderr, flush=True)

    return replace(hooks, log=log, preview=preview, save=save, event=event)


@contextmanager
def profiled(path: Path, iterations: int, advance: Callable[[int], None]) -> Iterator[Callable[[int], None]]:
    """Records so many iterations after WARM_UP of them, 0 for none; gives an `advance` for `Hooks`.

    Then a Chrome trace (ui.perfetto.dev) is in `path`, and the ten operators that took most time are printed.
    """

    def show(recorded: profile) -> None:
        recorded.export_chrome_trace(str(path))
        key = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        print(recorded.key_averages().table(sort_by=key, row_limit=10, max_name_column_width=50))
        print(f"trace of {recorded.step_num - WARM_UP} iterations: {path}")

    if not iterations:
        yield advance
        return
    when = schedule(wait=0, warmup=WARM_UP, active=iterations, repeat=1)
    with profile(schedule=when, on_trace_ready=show) as recorder:

        def both(iteration: int) -> None:
            advance(iteration)
            recorder.step()

        yield both
