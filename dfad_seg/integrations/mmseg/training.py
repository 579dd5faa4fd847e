"""What MMEngine's runner needs around a `DataFreeDistiller`: data that are none, two optimisers, a result."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import EMAHook, Hook
from mmengine.model import MMDistributedDataParallel, is_model_wrapper
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmseg.registry import DATASETS, HOOKS, MODEL_WRAPPERS, OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn
from torch.utils.data import IterableDataset, get_worker_info

from dfad_seg.common.errors import InputError
from dfad_seg.export import write
from dfad_seg.export.mmseg_format import make
from dfad_seg.integrations.mmseg.distiller import DataFreeDistiller


@DATASETS.register_module()
class IterationNumbers(IterableDataset):
    """0, 1, 2, ...: all that data-free training reads. A resumed run skips the numbers that were used.

    Use it with `batch_size=1, num_workers=0, sampler=None`.

    Args:
        metainfo: classes and palette, which the runner writes into checkpoints.
        epoch: numbers per pass, which the runner asks for; the next pass goes on where this one ended.
    """

    def __init__(self, metainfo: Mapping[str, Any] | None = None, epoch: int = 10_000) -> None:
        self.metainfo = dict(metainfo or {})
        self.epoch = epoch
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return self.epoch

    def __iter__(self) -> Iterator[int]:
        if get_worker_info() is not None:
            raise InputError("IterationNumbers counts in one process: set num_workers=0 of the train_dataloader.")
        return itertools.islice(self._numbers, self.epoch)


class Players(OptimWrapperDict):
    """The two players' optimisers."""

    def optim_context(self, model: nn.Module) -> Any:
        # The default wrapper for several processes asks for this; here it would train the wrong way.
        raise InputError(
            "data-free distillation on several processes needs its own wrapper: set"
            " model_wrapper_cfg = dict(type='DataFreeDistributed') in the config."
        )


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PlayersConstructor:
    """Builds the optimisers of student and generator, each from a config as for a single one.

    `optim_wrapper = dict(constructor="PlayersConstructor", student=dict(type="OptimWrapper", optimizer=dict(...)),
    generator=dict(...))`; either may have a `paramwise_cfg`.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: Any = None) -> None:
        self.configs = {name: value for name, value in optim_wrapper_cfg.items() if name != "type"}
        if set(self.configs) != {"student", "generator"} or paramwise_cfg is not None:
            raise InputError(
                "optim_wrapper with the PlayersConstructor takes student and generator, and nothing else; it has"
                f" {', '.join([*self.configs, *(['paramwise_cfg'] if paramwise_cfg is not None else [])])}."
            )

    def __call__(self, model: nn.Module) -> Players:
        distiller = model.module if is_model_wrapper(model) else model
        return Players(
            **{
                name: build_optim_wrapper(getattr(distiller, name), copy.deepcopy(c))
                for name, c in self.configs.items()
            }
        )


@MODEL_WRAPPERS.register_module()
class DataFreeDistributed(MMDistributedDataParallel):
    """A `DataFreeDistiller` on several processes, which start from the same weights and average their gradients.

    The averaging is the distiller's own: each of its steps trains one player through the other, which the reducer of
    `DistributedDataParallel`, made for one forward and one backward pass of all parameters, cannot follow.
    """

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Any]:
        return self.module.train_step(data, optim_wrapper)


@HOOKS.register_module()
class ExportStudentHook(Hook):
    """Writes the student as a config and a checkpoint of its own after training; see `export.mmseg_format`.

    Args:
        out_dir: default: `student` in the work directory.
    """

    priority = "LOWEST"  # after an EMAHook

    def __init__(self, out_dir: str | None = None) -> None:
        self.out_dir = out_dir

    @master_only
    def after_train(self, runner: Any) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not isinstance(model, DataFreeDistiller):
            raise InputError(f"the ExportStudentHook belongs to a DataFreeDistiller, not to a {type(model).__name__}.")
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                model = hook.ema_model.module
        directory = Path(self.out_dir or runner.work_dir) / ("" if self.out_dir else "student")
        write(make(model.student, runner.cfg), directory, "mmseg")
