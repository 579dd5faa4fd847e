"""What both loops share: the state that a run carries on, and what happens after each iteration."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dfad_seg.common.errors import Diverged, InputError, Interrupted
from dfad_seg.distill.health import NOT_FINITE, Health, HealthSettings, Trouble, all_finite
from dfad_seg.distill.hooks import Hooks, RunningMeans, is_due
from dfad_seg.distill.memory import ReplayMemory
from dfad_seg.distill.schedules import Schedule
from dfad_seg.distill.world import agree_to_stop, broadcast_buffers, reduced


class Training:
    """Networks, optimisers and the count of iterations; saved and restored together.

    Args:
        networks: by name, unwrapped; `"student"` is the one to keep.
        optimizers: by name.
        schedule: factor on every learning rate, by iteration.
        iterations: how many there will be.
        ema_decay: by network, the decay per iteration of a moving average of its weights (and, of the student, its
            statistics), or None.
        memory: generated images to remember, saved with the rest.
        health: policies for what goes wrong; default: those of `HealthSettings`.
    """

    def __init__(
        self,
        *,
        networks: dict[str, nn.Module],
        optimizers: dict[str, Optimizer],
        schedule: Schedule,
        iterations: int,
        ema_decay: dict[str, float | None],
        memory: ReplayMemory | None = None,
        health: Health | None = None,
    ) -> None:
        self.networks = networks
        self.optimizers = optimizers
        self.schedule = schedule
        self.iterations = iterations
        self.iteration = 0
        self.evaluation_pending = False
        self.means = RunningMeans()
        self.memory = memory
        self.health = health or Health(HealthSettings())
        self.health.watch(networks.values(), optimizers.values())
        # The student's running statistics are averaged, too; a generator's buffers are copied: some are class ids, and
        # it normalises by the statistics of its batch.
        self.averages = {
            name: AveragedModel(networks[name], multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=name == "student")
            for name, decay in ema_decay.items()
            if decay is not None
        }
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                # Kept in the group, so that it travels with the optimiser's state.
                group.setdefault("base_lr", group["lr"])

    def set_rates(self) -> dict[str, float]:
        """Set all learning rates for the present iteration; returns them by optimiser."""
        factor = self.schedule(self.iteration) * self.health.rate_scale
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
        return {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python only."""
        return {
            "iteration": self.iteration,
            "evaluation_pending": self.evaluation_pending,
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "averages": {name: average.state_dict() for name, average in self.averages.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "means": self.means.state_dict(),
            "memory": None if self.memory is None else self.memory.state_dict(),
            "health": self.health.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave.

        Raises:
            InputError: it is of other networks or optimisers, or incomplete.
        """
        try:
            self._load_state_dict(state)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(
                f"the saved state does not fit this run ({type(error).__name__}: {reason}). It is damaged, or was "
                "written by another program: resume from another checkpoint."
            ) from error

    def _load_state_dict(self, state: dict[str, Any]) -> None:
        self.iteration = state["iteration"]
        self.evaluation_pending = state["evaluation_pending"]
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, average in self.averages.items():
            average.load_state_dict(state["averages"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        device = next(self.networks["student"].parameters()).device
        self.means.load_state_dict(state["means"], device)
        if self.memory is not None:
            self.memory.load_state_dict(state["memory"], device)
        if "health" in state:  # not in files from before there was any
            self.health.load_state_dict(state["health"])

    def steady(self, name: str) -> nn.Module:
        """The moving average of a network if there is one, or else the network itself."""
        return self.averages[name].module if name in self.averages else self.networks[name]

    @torch.no_grad()
    def restart_average(self, name: str, renewed: Iterable[nn.Parameter]) -> None:
        """Let the moving average of some of a network's parameters, if any, begin with their present values."""
        if name in self.averages:
            these = {id(parameter) for parameter in renewed}
            pairs = zip(self.averages[name].module.parameters(), self.networks[name].parameters(), strict=True)
            for average, parameter in pairs:
                if id(parameter) in these:
                    average.copy_(parameter)

    def kept_student(self) -> nn.Module:
        """A copy of the student as it would be kept now (the average, if there is one), without gradients."""
        return copy.deepcopy(self.steady("student")).eval().requires_grad_(False)


def begin(training: Training, state: dict[str, Any] | None, hooks: Hooks) -> None:
    """Take up a saved state if there is one; a new run that may be rolled back saves where it begins."""
    if state is not None:
        training.load_state_dict(state)
    elif training.health.may_roll_back:
        hooks.save(0, training.state_dict())


def after_iteration(
    training: Training,
    *,
    fabric: Fabric,
    hooks: Hooks,
    rates: dict[str, float],
    kept_student: Callable[[], nn.Module],
    preview: Callable[[nn.Module], None] | None = None,
) -> bool:
    """Count the iteration, then log, look for trouble, evaluate, save and stop as `hooks` and the policies want.

    What was logged up to a saved iteration is never lost: the evaluation comes before the save, or, when the run is
    asked to stop, is marked as pending in the saved state and made up for on resume. Nothing that is not finite is
    ever saved.

    Returns:
        Whether the run was taken back to an earlier iteration.

    Raises:
        Interrupted: the run was asked to stop; the state has been saved.
        Diverged: training went wrong, and the policy is to stop; the last saved state is from before.
    """
    for name, average in training.averages.items():
        average.update_parameters(training.networks[name])
    training.iteration = done = training.iteration + 1
    last = training.iterations
    hooks.advance(done)
    if skips := training.health.take_skips():
        _report(hooks, done, "skipped", f"{skips} steps had gradients that are not finite", done)
    troubles: list[Trouble] = []
    logged = is_due(done, hooks.log_every, last)
    if logged:
        scalars = training.means.flush(lambda value: reduced(fabric, value, "mean"))
        hooks.log(done, scalars | {f"train/{name}_lr": rate for name, rate in rates.items()})
        troubles = training.health.look(done, scalars)
    stop = done < last and agree_to_stop(fabric, hooks, done)
    save = stop or is_due(done, hooks.save_every, last)
    training.evaluation_pending = is_due(done, hooks.evaluate_every, last)
    if logged or save or training.evaluation_pending:
        bad = 1 - all_finite([*training.networks.values(), *training.averages.values()], training.means.losses())
        found = training.health.look_at_weights(done, finite=not reduced(fabric, bad, "max") > 0)
        if found is not None and all(trouble.kind != NOT_FINITE for trouble in troubles):
            troubles.insert(0, found)  # before what only warns
    for trouble in troubles:
        if _treat(training, trouble, fabric=fabric, hooks=hooks, kept_student=kept_student):
            return True
    if save or training.evaluation_pending:
        # Not the averages' own counters, which lie on the CPU, where a GPU's processes cannot send them from.
        averages = [average.module for average in training.averages.values()]
        broadcast_buffers(fabric, *training.networks.values(), *averages)
    show = preview if is_due(done, hooks.preview_every, last) and not stop else None
    if not stop:
        try:
            evaluate_pending(training, hooks=hooks, kept_student=kept_student, preview=show)
        except Exception:
            # A broken evaluation image should not cost the training done since the last save.
            training.evaluation_pending = True
            hooks.save(done, training.state_dict())
            raise
    if save:
        hooks.save(done, training.state_dict())
    if stop:
        raise Interrupted(done)
    return False


def evaluate_pending(
    training: Training,
    *,
    hooks: Hooks,
    kept_student: Callable[[], nn.Module],
    preview: Callable[[nn.Module], None] | None = None,
) -> None:
    """Evaluate and preview the student of this iteration, if that is still to be done."""
    evaluate = hooks.evaluate if training.evaluation_pending else None
    training.evaluation_pending = False
    if evaluate is None and preview is None:
        return
    kept = kept_student()
    if evaluate is not None:
        hooks.log(training.iteration, evaluate(kept))
    if preview is not None:
        preview(kept)


def _treat(
    training: Training, trouble: Trouble, *, fabric: Fabric, hooks: Hooks, kept_student: Callable[[], nn.Module]
) -> bool:
    """Do what the policy says; whether the run was taken back to an earlier iteration."""
    found_at, health = training.iteration, training.health
    if trouble.action == "warn":
        _report(hooks, found_at, trouble.kind, trouble.cause, found_at)
        return False
    state = hooks.load(trouble.since)
    fabric.barrier()  # every rank has read it before rank 0 writes
    if trouble.action == "roll_back" and state is not None:
        scale, count = health.rate_scale, health.roll_backs
        training.load_state_dict(state)
        # A state that is older than the last return does not know of it.
        health.rate_scale, health.roll_backs = scale, count
        health.roll_back()
        training.evaluation_pending = False  # made up for before this run went on from there
        hooks.rewind(training.iteration)
        hooks.save(training.iteration, training.state_dict())
        outcome = f"back to iteration {training.iteration}, learning rates times {health.rate_scale:g}"
        _report(hooks, training.iteration, trouble.kind, f"{trouble.cause}; {outcome}", found_at)
        return True
    _report(hooks, found_at, trouble.kind, f"{trouble.cause}; stopped", found_at)
    kept = None
    if state is not None:
        training.load_state_dict(state)
        kept = kept_student()
    raise Diverged(
        f"training diverged: {trouble.cause}, at iteration {found_at}. Lower the learning rates, set clip_norm, or "
        "choose another policy (health); the last checkpoint is from before and can be evaluated or resumed.",
        kept=kept,
        iteration=training.iteration,
    )


def _report(hooks: Hooks, iteration: int, kind: str, cause: str, found_at: int) -> None:
    hooks.event(iteration, {"event": kind, "cause": cause, "found_at": found_at})
