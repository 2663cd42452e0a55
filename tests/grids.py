"""Tests over grids: what values do to each other shows in pairs; all combinations are tried by the campaigns."""

from itertools import combinations, product

import pytest


def grid(together=2, /, **axes):
    """Runs a test with every combination of the values of its axes.

    ``make test`` tries as many as it takes for every value to meet every value of another axis; the others are
    campaigns. A value that is a tuple may fill several arguments: its axis is then named ``first__second``.

    Args:
        together: of how many axes all values meet; 1 if it is enough that each value occurs.
        axes: the values per argument.
    """
    values = [list(each) for each in axes.values()]
    combos = list(product(*(range(len(each)) for each in values)))
    kept = set(_covering(combos, together))
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


def _covering(combos, together):
    """Yields combinations until all places have met: each time one in which most of them meet for the first time."""

    def meetings(combo):
        return set(combinations(enumerate(combo), together))

    missing = set().union(*map(meetings, combos))
    while missing:
        best = max(combos, key=lambda combo: len(missing & meetings(combo)))
        missing -= meetings(best)
        yield best
