"""Generators that start anew: their weights, optimisers and moving averages."""

from test_loops import play
from toys import json_like_copy

from dfad_seg.distill import GameSettings, Hooks, build_schedule


def states(**options):
    """What a game would be resumed from, by iteration."""
    saved = {}
    play(hooks=Hooks(save=lambda step, state: saved.setdefault(step, json_like_copy(state)), save_every=1), **options)
    return saved


def test_generator_restarts_from_fresh_weights():
    saved = states(iterations=3, restart_every=2)
    weight = "project.weight"
    before, after = (saved[step]["networks"]["generator"][weight] for step in (2, 3))
    steps = {float(entry["step"]) for entry in saved[3]["optimizers"]["generator"]["state"].values()}
    assert (before - after).abs().mean() > 0.01  # two independent draws of N(0, 0.02) lie 0.023 apart
    assert steps == {1.0}


def test_painters_restart_one_after_the_other_while_the_learning_rate_is_high():
    """Each begins anew with an optimiser that has forgotten it alone."""
    saved = states(iterations=5, restart_every=1, layouts=True, painters=2)  # a tenth of the rate from 3 on

    def steps(step):
        entries = saved[step]["optimizers"]["generator"]["state"]
        counts = [int(entries[place]["step"]) for place in sorted(entries)]
        half = len(counts) // 2
        assert len(set(counts[:half])) == len(set(counts[half:])) == 1
        return counts[0], counts[half]

    assert [steps(step) for step in range(1, 6)] == [(1, 1), (1, 2), (2, 1), (3, 2), (4, 3)]


def test_a_warm_up_does_not_keep_the_generator_from_restarting():
    schedule = build_schedule("cosine", iterations=20, warmup=8)
    settings = GameSettings(iterations=20, warmup=8, restart_every=2)
    restarts = [iteration for iteration in range(20) if settings.restarts_at(iteration, schedule)]
    assert restarts == [i for i in range(2, 20, 2) if i < 8 or schedule(i) >= 0.5]
    assert 2 in restarts and schedule(2) < 0.5 and 18 not in restarts


def test_a_restart_renews_the_generators_average():
    """Images between the old weights and the new ones are those of no generator."""
    saved = states(iterations=3, restart_every=2, generator_ema_decay=0.99)
    fresh, average = saved[3]["networks"]["generator"], saved[3]["averages"]["generator"]
    name = "project.weight"
    assert (fresh[name] - average[f"module.{name}"]).abs().max() < 0.01  # two independent draws lie 0.1 apart
    assert (saved[2]["averages"]["generator"][f"module.{name}"] - average[f"module.{name}"]).abs().max() > 0.05


def test_the_average_of_the_other_painters_goes_on():
    saved = states(iterations=3, restart_every=2, generator_ema_decay=0.99, layouts=True, painters=2)
    before, after = (saved[step]["averages"]["generator"] for step in (2, 3))

    def moved(painter):
        names = [name for name in after if f"painters.{painter}." in name and name.endswith("weight")]
        return max(float((after[name] - before[name]).abs().max()) for name in names)

    assert moved(0) > 0.05 and moved(1) < 0.01
