"""Tests over grids: what values do to each other shows in pairs; all combinations are tried by the campaigns."""

from itertools import combinations, product

import pytest


def grid(**axes):
    """Runs a test with every combination of the values of its axes.

    ``make test`` tries as many as it takes for every value to meet every value of another axis; the others are
    campaigns. A value that is a tuple may fill several arguments: its axis is then named ``first__second``.
    """
    combos = list(product(*(range(len(list(values))) for values in axes.values())))
    kept = set(_covering(combos))
    values = [list(each) for each in axes.values()]
    cases = [
        pytest.param(
            *_arguments(axes, [values[axis][place] for axis, place in enumerate(combo)]),
            marks=() if combo in kept else pytest.mark.campaign,
        )
        for combo in combos
    ]
    return pytest.mark.parametrize([name for axis in axes for name in axis.split("__")], cases)


def _arguments(axes, chosen):
    for axis, value in zip(axes, chosen, strict=True):
        if "__" in axis:
            yield from value
        else:
            yield value


def _covering(combos):
    """Yields combinations until every pair of places on two axes was in one: each time one with the most new pairs."""
    missing = {pair for combo in combos for pair in _pairs(combo)}
    while missing:
        best = max(combos, key=lambda combo: len(missing & _pairs(combo)))
        missing -= _pairs(best)
        yield best


def _pairs(combo):
    return set(combinations(enumerate(combo), 2))
