"""What all loops share: the state that a run carries on, and what happens around each iteration."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dfad_seg.common.errors import Diverged, Interrupted, explained
from dfad_seg.distill.game import Training
from dfad_seg.distill.health import all_finite
from dfad_seg.distill.hooks import Hooks, is_due
from dfad_seg.distill.memory import ReplayMemory
from dfad_seg.distill.meters import Meters
from dfad_seg.distill.optimizers import Schedule, build_schedule
from dfad_seg.distill.saved_states import check_saved
from dfad_seg.distill.seeds import iteration_rng


@dataclass
class Progress:
    """Networks, optimisers and the count of iterations; saved and restored together.

    `networks` and `optimizers` are by name, the former unwrapped; `"student"` is the one to keep.
    """

    training: Training
    fabric: Fabric
    networks: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    hooks: Hooks
    memory: ReplayMemory | None = None

    def __post_init__(self) -> None:
        self.hooks.state = self.state_dict
        self.schedule: Schedule = build_schedule(self.training.schedule, self.training.iterations)
        self.iteration = 0
        self.evaluation_pending = False
        self.meters = Meters()
        decay = self.training.ema_decay
        self.average = None if decay is None else moving_average(self.networks["student"], decay)
        self.last_good: tuple[int, nn.Module] | None = None
        """The iteration of the last saved state, and the student that would be kept then."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                # Kept in the group, so that it travels with the optimiser's state.
                group.setdefault("base_lr", group["lr"])

    def iterate(
        self, state: dict[str, Any] | None, preview: Callable[[nn.Module], None] | None = None
    ) -> Iterator[torch.Generator]:
        """Yield the randomness of each iteration to play, from the saved state on if there is one, and afterwards log,
        look for trouble, evaluate, save and stop as the hooks want.

        Raises:
            Interrupted: the run was asked to stop; the state has been saved.
            Diverged: something is not finite; the last saved state is from before.
            InputError: `state` is of another run.
        """
        if state is not None:
            self.load_state_dict(state)
            self.last_good = (self.iteration, self.kept_student())
        student = self.networks["student"].train()
        for name, module in student.named_modules():
            if isinstance(module, _BatchNorm) and any(part in name for part in self.training.fixed_norm):
                module.eval()
        self._evaluate_pending()
        while self.iteration < self.training.iterations:
            rates = self._set_rates()
            yield iteration_rng(self.training.seed, self.fabric.global_rank, self.iteration, self.fabric.device)
            self._after_iteration(rates, preview)

    def _set_rates(self) -> dict[str, float]:
        """Set all learning rates for the present iteration; returns them by optimiser."""
        factor = self.schedule(self.iteration)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
        return {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}

    def _after_iteration(self, rates: dict[str, float], preview: Callable[[nn.Module], None] | None) -> None:
        # What was logged up to a saved iteration is never lost: the evaluation comes before the save, or, when the run
        # is asked to stop, is marked as pending in the saved state and made up for on resume. Nothing that is not
        # finite is ever saved.
        hooks, last = self.hooks, self.training.iterations
        if self.average is not None:
            self.average.update_parameters(self.networks["student"])
        self.iteration = done = self.iteration + 1
        hooks.advance(done)
        bad: list[str] = []
        logged = is_due(done, hooks.log_every, last)
        if logged:
            scalars = self.meters.flush(lambda value: reduced(self.fabric, value, "mean"))
            hooks.log(done, scalars | {f"train/{name}_lr": rate for name, rate in rates.items()})
            # Looked at here, where the numbers are known: their means carry any value that was not finite.
            bad = [name for name, value in scalars.items() if name.endswith("loss") and not math.isfinite(value)]
        stop = done < last and agree_to_stop(self.fabric, hooks, done)
        save = stop or is_due(done, hooks.save_every, last)
        self.evaluation_pending = is_due(done, hooks.evaluate_every, last)
        # Not the average's own counter, which lies on the CPU, where a GPU's processes cannot send it from.
        networks = [*self.networks.values()] + ([] if self.average is None else [self.average.module])
        if logged or save or self.evaluation_pending:
            finite = reduced(self.fabric, 1 - all_finite(networks, self.meters.losses()), "max") == 0
            if bad or not finite:
                what = ", ".join(bad) or "some weight or running statistic of the networks"
                raise self._diverged(f"{what} is not finite")
        broadcast_buffers(self.fabric, *networks)  # always, so that a save or an evaluation more changes nothing
        if not stop:
            try:
                self._evaluate_pending(preview if is_due(done, hooks.preview_every, last) else None)
            except Exception:
                # A broken evaluation image should not cost the training done since the last save.
                self.evaluation_pending = True
                self._save(of_all_ranks=False)  # the others may not come to the same place
                raise
        if save:
            self._save()
        if stop:
            self.fabric.barrier()  # until rank 0 has saved: the first that ends, ends all
            raise Interrupted(done, stop)

    def _evaluate_pending(self, preview: Callable[[nn.Module], None] | None = None) -> None:
        """Evaluate and preview the student of this iteration, if that is still to be done."""
        evaluate = self.hooks.evaluate if self.evaluation_pending else None
        self.evaluation_pending = False
        if evaluate is None and preview is None:
            return
        kept = self.kept_student()
        if evaluate is not None:
            self.hooks.log(self.iteration, evaluate(kept))
        if preview is not None:
            preview(kept)

    def _save(self, *, of_all_ranks: bool = True) -> None:
        """Hand over the state; the student of now is kept in case that training goes wrong later."""
        self.hooks.save(self.iteration, self.state_dict(of_all_ranks=of_all_ranks))
        self.last_good = (self.iteration, self.kept_student())

    def _diverged(self, cause: str) -> Diverged:
        self.hooks.event(self.iteration, {"event": "not_finite", "cause": cause, "found_at": self.iteration})
        since, kept = self.last_good or (0, None)
        return Diverged(
            f"training diverged: {cause}, at iteration {self.iteration}. The state of iteration {since} was "
            "saved before and is good. To go on: lower the learning rates (lr of the optimisers) or set clip_norm, and "
            "start anew in another folder.",
            kept=kept,
            iteration=since,
        )

    def kept_student(self) -> nn.Module:
        """A copy of the student as it would be kept now (the average, if there is one), without gradients."""
        student = self.networks["student"] if self.average is None else self.average.module
        return copy.deepcopy(student).eval().requires_grad_(False)

    def state_dict(self, *, of_all_ranks: bool = False) -> dict[str, Any]:
        """Tensors and plain Python only. All ranks must call it at once if it is to hold the memories of all."""
        return {
            "iteration": self.iteration,
            "evaluation_pending": self.evaluation_pending,
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "average": None if self.average is None else self.average.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "meters": self.meters.state_dict(),
            "memory": self._memories(of_all_ranks and self.fabric.world_size > 1),
        }

    def _memories(self, of_all_ranks: bool) -> list[dict[str, Any]] | None:
        """What each rank's replay memory holds: of this rank, or of all in their order."""
        own = None if self.memory is None else self.memory.state_dict()
        if own is None or not of_all_ranks:
            return None if own is None else [own]
        together = {name: self.fabric.all_gather(rows) for name, rows in own.items()}
        return [{name: rows[rank].clone() for name, rows in together.items()} for rank in range(self.fabric.world_size)]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        advice = "It is damaged, or was written by another program: resume from another checkpoint."
        with explained("the saved state does not fit this run", advice):
            room, channels = getattr(self.memory, "capacity", 0), getattr(self.networks["student"], "in_channels", 3)
            limits = {"length": self.training.iterations, "room": room, "channels": channels}
            check_saved(state, self.state_dict(), self.optimizers, **limits)
            self.iteration = state["iteration"]
            self.evaluation_pending = state["evaluation_pending"]
            for name, network in self.networks.items():
                network.load_state_dict(state["networks"][name])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
            device = next(self.networks["student"].parameters()).device
            self.meters.load_state_dict(state["meters"], device)
            if self.memory is not None:
                memories = state["memory"]
                self.memory.load_state_dict(memories[self.fabric.global_rank % len(memories)], device)


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """A moving average of weights and running statistics that keeps min(d, (1 + t) / (10 + t)) in update t = 0, 1, …

    A constant decay d would remember the first weights for 1 / (1 − d) updates, longer than a short run lasts.
    """

    def update(averages: Any, current: Any, count: Tensor | int) -> None:
        # The first update, t = 0, is torch's own: a copy.
        get_ema_multi_avg_fn(min(decay, (1 + int(count)) / (10 + int(count))))(averages, current, count)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)


def broadcast_buffers(fabric: Fabric, *networks: nn.Module) -> None:
    """Give every rank the running statistics (and other buffers) of rank 0.

    Data-parallel training averages gradients only; forward passes outside its wrapper let the statistics differ.
    """
    buffers = [buffer for network in networks for buffer in network.buffers() if buffer.numel()]
    if fabric.world_size > 1 and buffers:
        torch.distributed._broadcast_coalesced(torch.distributed.group.WORLD, buffers, 2**25, 0)  # type: ignore


def agree_to_stop(fabric: Fabric, hooks: Hooks, iteration: int) -> int:
    """What any rank was asked to stop by, 0: nothing. Several ranks compare notes at log points, as that is a stall."""
    asked = hooks.stop_requested()
    if fabric.world_size == 1:
        return asked
    if iteration % max(1, hooks.log_every):
        return 0
    return int(reduced(fabric, torch.tensor(float(asked), device=fabric.device), "max"))


def reduced(fabric: Fabric, value: Tensor, operation: str) -> Tensor:
    """A tensor combined over all ranks: `"mean"`, `"sum"` or `"max"`."""
    return fabric.all_reduce(value, reduce_op=operation)  # type: ignore[return-value]
