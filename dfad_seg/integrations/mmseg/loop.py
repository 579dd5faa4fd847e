"""MMEngine's runner plays the game of `distill.distil`: its hooks, logs, validation, checkpoints and work directory."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from mmengine.dist import get_world_size, master_only
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import BaseLoop
from mmseg.registry import HOOKS, LOOPS, OPTIM_WRAPPER_CONSTRUCTORS
from torch import Tensor, nn

from dfad_seg.common.errors import EXIT_DIVERGED, Diverged, InputError, Interrupted, exit_code
from dfad_seg.common.files import write_text
from dfad_seg.common.modules import evaluating
from dfad_seg.distill import Hooks, distil
from dfad_seg.distill.health import all_finite
from dfad_seg.exporting import write
from dfad_seg.exporting.mmseg_format import make
from dfad_seg.integrations.mmseg.student import DataFreeStudent, student_of
from dfad_seg.recipes.device import torch_settings
from dfad_seg.recipes.peers import together
from dfad_seg.recipes.pictures import generated_picture
from dfad_seg.recipes.reporting import StopSignals
from dfad_seg.segmentors import Segmentor, optimize_for_distillation

STATE = "dfad_seg"
"""Where a checkpoint of the runner holds the state of the game."""


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GameOptimizers:
    """`optim_wrapper = dict(constructor="GameOptimizers")`: the runner asks for one, and the game has its own two."""

    def __init__(self, optim_wrapper_cfg: Any, paramwise_cfg: Any = None) -> None:
        if set(optim_wrapper_cfg) - {"type"} or paramwise_cfg is not None:
            raise InputError(
                "optim_wrapper = dict(constructor='GameOptimizers') takes nothing else: the optimisers are the game's"
                " student_optimizer and generator_optimizer. Add _delete_=True where a base says more."
            )

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        return _NoOptimizers()


class _NoOptimizers(OptimWrapperDict):
    def load_state_dict(self, state_dict: dict) -> None:
        """The game's own are in its state."""


@LOOPS.register_module()
class DataFreeLoop(BaseLoop):
    """`train_cfg = dict(type="DataFreeLoop", val_interval=...)`: plays the game of the `DataFreeStudent`.

    The training data loader is not built: no image can be read.

    Args:
        val_interval: iterations between two validations; 0: none.
    """

    def __init__(self, runner: Any, dataloader: Any, val_interval: int = 1000) -> None:
        self._runner = runner
        self.student: DataFreeStudent = student_of(runner)
        self.config = self.student.game
        self.dataloader = _NoData(self.student.segmentor, self.config.iterations)
        self.val_begin, self.val_interval = 1, val_interval
        self.max_iters, self.max_epochs = self.config.iterations, 1
        self._iter = self._epoch = 0
        self.state: dict[str, Any] | None = None
        self.precision: str | None = None
        self.validating = False
        self.signals = StopSignals()
        self.hooks = Hooks(
            log=self._after_iteration,
            evaluate=self._validate if runner.val_loop is not None else None,
            save=self._save,
            event=lambda done, record: runner.logger.warning(f"{record['event']}: {record['cause']}"),
            preview=self._preview,
            stop_requested=self.signals,
            log_every=1,
            evaluate_every=val_interval,
            preview_every=getattr(self.config, "preview_every", 0),
        )
        runner.register_hook(_GameState(self), priority="LOWEST")  # after whoever changes the state dict

    @property
    def iter(self) -> int:
        """Iterations that are done."""
        return self._iter

    @property
    def epoch(self) -> int:
        """Always the first."""
        return self._epoch

    def run(self) -> nn.Module:
        """Play, and leave the student to keep in the runner's model.

        Raises:
            SystemExit: stopped by a signal, or diverged; the work directory can be resumed.
        """
        runner, experiment = self.runner, self.student.experiment
        if self._iter and self.state is None:
            raise InputError("the checkpoint to resume from has no state of a game: it was written by another program.")
        config = dataclasses.replace(self.config, devices=get_world_size())
        with torch_settings(config):
            self.precision = (self.state or {}).get("precision") if self._iter else None
            try:
                with together(config, decided=self.precision) as fabric:
                    self.precision = str(fabric._precision.precision)
                    for name in ("before_train", "before_train_epoch"):
                        runner.call_hook(name)
                    runner.call_hook("before_train_iter", batch_idx=self._iter)
                    optimize_for_distillation(self.student.segmentor, config.image_size, trainable=True)
                    assert experiment.generator is not None
                    with self.signals:
                        kept = distil(
                            experiment.fast_teacher(),
                            self.student.segmentor,
                            experiment.generator,
                            config,
                            losses=experiment.losses,
                            fabric=fabric,
                            state=self.state if self._iter else None,
                            hooks=self.hooks,
                        )
            except Interrupted as stop:
                runner.logger.info(f"stopped after iteration {stop.iteration}; resume with --resume")
                raise SystemExit(exit_code(stop)) from None
            except Diverged as error:
                runner.logger.error(str(error))
                raise SystemExit(EXIT_DIVERGED) from None
        self.student.segmentor.load_state_dict(kept.state_dict())
        runner.call_hook("after_train_epoch")
        runner.call_hook("after_train")
        return runner.model

    def _after_iteration(self, done: int, scalars: dict[str, float]) -> None:
        if not scalars:  # an evaluation's, which the runner has logged itself
            return
        outputs = {name.removeprefix("train/"): value for name, value in scalars.items()}
        if all(np.isfinite(value) for value in outputs.values()):  # what is not is refused right after this
            self.runner.call_hook("after_train_iter", batch_idx=done - 1, outputs=outputs)
        self._iter = done
        if done < self.max_iters:
            self.runner.call_hook("before_train_iter", batch_idx=done)

    def _validate(self, kept: nn.Module) -> dict[str, float]:
        """The student to keep in the place of the trained one, and everything as it was afterwards."""
        segmentor = self.student.segmentor
        trained = {name: value.clone() for name, value in segmentor.state_dict().items()}
        segmentor.load_state_dict(kept.state_dict())
        self.validating = True
        try:
            with evaluating(self.student):
                self.runner.val_loop.run()
        finally:
            segmentor.load_state_dict(trained)
            self.validating = False
        return {}

    def _save(self, done: int, state: dict[str, Any]) -> None:
        # Their CheckpointHook has saved what was due, except when the run is stopped in between.
        if done == self.max_iters:
            return
        name, meta = f"iter_{done}.pth", {"epoch": 0, "iter": done}
        self.runner.save_checkpoint(self.runner.work_dir, name, meta=meta, by_epoch=False, save_param_scheduler=False)
        self._note(Path(self.runner.work_dir) / name)

    @master_only
    def _note(self, checkpoint: Path) -> None:
        write_text(checkpoint.parent / "last_checkpoint", str(checkpoint))

    def _preview(self, done: int, images: Tensor, teacher_labels: Tensor, student_labels: Tensor) -> None:
        labels, info = (teacher_labels, student_labels), self.student.experiment.info
        picture = generated_picture(images, *labels, f"generated images after {done} iterations", info)
        self.runner.visualizer.add_image("generated", picture, step=done)


class _NoData:
    """What hooks ask the training data loader for."""

    def __init__(self, segmentor: Segmentor, iterations: int) -> None:
        meta = {"classes": segmentor.classes, "palette": segmentor.palette}
        self.dataset = SimpleNamespace(metainfo={key: value for key, value in meta.items() if value is not None})
        self.iterations = iterations

    def __len__(self) -> int:
        return self.iterations


class _GameState(Hook):
    """The game's state in the runner's checkpoints, and the student to keep as their model."""

    def __init__(self, loop: DataFreeLoop) -> None:
        self.loop = loop

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        state = self.loop.hooks.state() | {"precision": self.loop.precision}
        if self.loop.validating:  # a best one: the student to keep stands in the trained one's place, and that is all
            return
        if not all_finite([self.loop.student]):
            raise Diverged("the student's weights are not finite; the last checkpoint is from before.")
        average = state["average"]
        if average is not None:
            for name in self.loop.student.segmentor.state_dict():
                checkpoint["state_dict"][f"segmentor.{name}"] = average[f"module.{name}"].cpu()
        checkpoint[STATE] = state

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        self.loop.state = checkpoint.pop(STATE, None)


@HOOKS.register_module()
class ExportStudentHook(Hook):
    """Writes the student as a config and a checkpoint of its own after training; default: `student` in the work dir."""

    priority = "LOWEST"

    def __init__(self, out_dir: str | None = None) -> None:
        self.out_dir = out_dir

    @master_only
    def after_train(self, runner: Any) -> None:
        segmentor = student_of(runner).segmentor
        assert isinstance(segmentor, Segmentor)
        write(make(segmentor, runner.cfg), self.out_dir or Path(runner.work_dir) / "student", "mmseg")
