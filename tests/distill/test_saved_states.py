"""A saved state of which any part is another is refused before an optimiser sees it."""

import copy
import functools
import operator
import re

import pytest
import torch
from damage import places, put
from playing import play

from dfad_seg.common.errors import InputError
from dfad_seg.distill import Hooks, training
from dfad_seg.distill.saved_states import check_saved

ODD = ("x", None, {}, [], torch.zeros(0), torch.zeros(3, dtype=torch.int8), torch.zeros(2, 2).to_sparse(), 2**70)
WITH = {"student_optimizer": {"type": "adamw", "lr": 1e-3}, "replay": {"size": 8, "steps": 1}, "iterations": 3}


@pytest.fixture(scope="module")
def saved():
    states = {}
    play(hooks=Hooks(save=states.__setitem__, save_every=2, log_every=3), **WITH)
    return states[2]


def test_the_state_itself_is_taken_and_any_other_part_is_refused(saved, monkeypatch):
    asked = {}

    def remember(state, fresh, optimizers, **limits):
        asked.update(fresh=copy.deepcopy(fresh), optimizers=optimizers, **limits)
        check_saved(state, fresh, optimizers, **limits)

    monkeypatch.setattr(training, "check_saved", remember)
    play(state=copy.deepcopy(saved), **WITH)
    _, *paths = places(saved)
    for number, path in enumerate(paths):
        odd, there = ODD[number % len(ODD)], functools.reduce(operator.getitem, path, saved)
        if there is None or type(there) is type(odd) is not torch.Tensor:
            odd = torch.zeros(1, 5)
        # Those that Progress.load_state_dict makes an InputError of.
        with pytest.raises((KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError)):
            check_saved(put(saved, path, odd), **asked)


@pytest.mark.parametrize(
    "path, value",
    [
        ("optimizers.student.state.0.exp_avg", torch.zeros(64)),  # would reach a fused kernel
        ("optimizers.student.param_groups.0.weight_decay", 1e300),  # the config's, not the file's
        ("optimizers.student.param_groups.0.base_lr", 7.0),
        ("iteration", 4),
        ("iteration", -1),
    ],
)
def test_what_fits_in_type_and_is_wrong_is_named(saved, path, value):
    at = [int(key) if key.isdigit() else key for key in path.split(".")]
    with pytest.raises(InputError, match=re.escape(f"{path} is of another")):
        play(state=put(saved, at, value), **WITH)
