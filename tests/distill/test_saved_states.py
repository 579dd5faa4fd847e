"""A saved state of which any part is another is refused before an optimiser sees it."""

import copy

import pytest
import torch
from playing import play

from dfad_seg.common.errors import InputError
from dfad_seg.distill import Hooks

ODD = ("x", None, {}, [], torch.zeros(0), torch.zeros(3, dtype=torch.int8), torch.zeros(2, 2).to_sparse(), 2**70)
WITH = {
    "student_optimizer": {"type": "adamw", "lr": 1e-3},
    "replay": {"size": 8, "steps": 1},
    "ema_decay": 0.9,
    "iterations": 3,
}


@pytest.fixture(scope="module")
def saved():
    states = {}
    play(hooks=Hooks(save=states.__setitem__, save_every=2, log_every=3), **WITH)
    return states[2]


def places(value, path=()):
    """The paths to all parts of a state, containers as well."""
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*path, key))


def test_the_state_itself_is_taken(saved):
    play(state=copy.deepcopy(saved), **WITH)


def test_any_other_part_is_refused(saved):
    tried = 0
    for number, path in enumerate(places(saved)):
        if path[:3] == ("optimizers", "generator", "state") and number % 7:
            continue  # the same again and again
        odd = ODD[number % len(ODD)]
        state = copy.deepcopy(saved)
        parent = state
        for key in path[:-1]:
            parent = parent[key]
        if parent[path[-1]] is None or type(parent[path[-1]]) is type(odd) is not torch.Tensor:
            odd = torch.zeros(1, 5)
        parent[path[-1]] = odd
        with pytest.raises(InputError, match="does not fit this run"):
            play(state=state, **WITH)
        tried += 1
    assert tried > 100


@pytest.mark.parametrize("shape", [(0,), (1,), (64,)])
def test_moments_of_another_shape_do_not_reach_the_kernel(saved, shape):
    state = copy.deepcopy(saved)
    state["optimizers"]["student"]["state"][0]["exp_avg"] = torch.zeros(shape)
    with pytest.raises(InputError, match=r"optimizers\.student\.state\.0\.exp_avg"):
        play(state=state, **WITH)
