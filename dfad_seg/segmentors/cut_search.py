"""How many channels each width loses, so that the budget is met at the least cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dfad_seg.common.errors import InputError
from dfad_seg.segmentors.cut_importance import Price
from dfad_seg.segmentors.cut_narrow import Width
from dfad_seg.segmentors.cut_widths import Costs

TOLERANCE = 0.03
"""By how much of itself a budget may be missed."""


def find_drops(
    widths: Sequence[Width], costs: Costs, prices: Mapping[str, Price], *, what: str, share: float
) -> dict[str, int]:
    """How many channels each width loses: the least summed cost at which the network meets the budget.

    Args:
        what: `macs` or `parameters`.
        share: of the whole network's that the cut one has at most.

    Raises:
        InputError: not even the narrowest network meets the budget.
    """
    index = 0 if what == "macs" else 1
    whole = costs.total({})[index]
    target = share * whole
    drops = {width.name: 0 for width in widths}
    if share >= 1:
        return drops
    narrowest = costs.total({name: price.counts[-1] for name, price in prices.items()})[index]
    if narrowest > target * (1 + TOLERANCE):
        raise InputError(
            f"{what}: {share:g} of the teacher's cannot be reached: with an eighth of all channels that can be dropped,"
            f" {narrowest / whole:.2f} is left. Ask for at least {narrowest / whole + 0.01:.2f}, or take"
            " another student."
        )
    touched = {width.name: {layer for layer, _, _ in costs.loss[width.name]} for width in widths}

    def cheapest(rate: float) -> dict[str, int]:
        """The drops of least cost + rate × budget, by one width after the other until none moves."""
        found = {width.name: 0 for width in widths}
        lost = costs.lost(found)
        for _ in range(4):
            moved = False
            for width in widths:
                name, price = width.name, prices[width.name]
                best, best_value = found[name], float("inf")
                others = dict(lost)
                for layer, side, each in costs.loss[name]:
                    others[layer, side] -= each * found[name]
                for count, cost in zip(price.counts, price.costs, strict=True):
                    trial = dict(others)
                    for layer, side, each in costs.loss[name]:
                        trial[layer, side] += each * count
                    spent = sum(costs.layer(layer, trial)[index] for layer in touched[name])
                    value = cost + rate * spent / whole
                    if value < best_value:
                        best, best_value, best_lost = count, value, trial
                moved |= best != found[name]
                found[name], lost = best, best_lost
            if not moved:
                break
        return found

    low, high = 1e-9, 1e9
    for _ in range(50):
        middle = (low * high) ** 0.5
        found = cheapest(middle)
        if costs.total(found)[index] > target:
            low = middle
        else:
            high, drops = middle, found
    return _fill(widths, costs, prices, drops, target, index)


def _fill(
    widths: Sequence[Width], costs: Costs, prices: Mapping[str, Price], drops: dict[str, int], target: float, index: int
) -> dict[str, int]:
    """Channels given back while the budget allows: prices come in steps, and budgets do not."""
    for width in sorted(widths, key=lambda w: -prices[w.name].costs[prices[w.name].counts.index(drops[w.name])]):
        while drops[width.name] > 0:
            trial = drops | {width.name: drops[width.name] - 1}
            if costs.total(trial)[index] > target:
                break
            drops = trial
    return drops
