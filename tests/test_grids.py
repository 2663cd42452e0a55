"""A grid holds every combination once, and its pairs are among those that are no campaign."""

from itertools import combinations, product

from grids import grid

AXES = {"a": "xyz", "b__c": [(1, 2), (3, 4)], "d": [0, None, 5, 7]}


def cases(*together, **axes):
    mark = grid(*together, **axes).mark
    return mark.args[0], [(case.values, case.marks == ()) for case in mark.args[1]]


def test_every_pair_is_kept_and_every_combination_is_there():
    names, found = cases(**AXES)
    assert names == ["a", "b", "c", "d"]
    everything = [(a, *bc, d) for a, bc, d in product(*AXES.values())]
    assert sorted(map(repr, everything)) == sorted(repr(values) for values, _ in found)
    kept = [(a, (b, c), d) for (a, b, c, d), is_kept in found if is_kept]
    for first, second in combinations(range(3), 2):
        met = {(values[first], values[second]) for values in kept}
        assert len(met) == len(list(AXES.values())[first]) * len(list(AXES.values())[second])
    assert len(kept) < len(found)


def test_every_value_occurs():
    _, found = cases(1, a=[1, 2], b=[3, 4, 5])
    kept = [values for values, is_kept in found if is_kept]
    assert len(kept) == 3 and len(found) == 6
    assert {a for a, _ in kept} == {1, 2} and {b for _, b in kept} == {3, 4, 5}


def test_two_axes_are_tried_in_full():
    _, found = cases(a=[1, 2], b=[3, 4, 5])
    assert all(is_kept for _, is_kept in found)
