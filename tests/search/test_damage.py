"""The damage of sets of layers, predicted from that of each layer alone, and the cheapest set within a limit."""

import itertools
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amct_tensorflow.search.damage import DamageModel
from amct_tensorflow.search.knapsack import Knapsack


def raised(*names):
    return frozenset((name, 1) for name in names)


def test_powers_of_independent_errors_add_up():
    model = DamageModel({"a": [1.0], "b": [2.0], "c": [4.0]}, whole=7.0)
    assert model.power == pytest.approx(1)
    assert model.damage(frozenset()) == pytest.approx(7)
    assert model.damage(raised("b")) == pytest.approx(5)
    assert model.damage(raised("a", "b", "c")) == 0


def test_outputs_that_saturate_add_up_to_less():
    """Three errors of 3, 4 and 12 that together make 13: a sum of squares."""
    model = DamageModel({"a": [3.0], "b": [4.0], "c": [12.0]}, whole=13.0)
    assert model.power == pytest.approx(2)
    assert model.damage(raised("c")) == pytest.approx(5)


def test_what_is_measured_of_a_set_is_met():
    model = DamageModel({"a": [1.0], "b": [2.0], "c": [4.0]}, whole=7.0)
    model.meet(raised("c"), 1.5)
    assert model.damage(raised("c")) == pytest.approx(1.5)
    assert model.damage(raised("a", "c")) == pytest.approx(1.0)


@pytest.mark.parametrize("whole", [1e-6, 1e6])
def test_a_whole_that_no_exponent_explains_is_met_all_the_same(whole):
    model = DamageModel({"a": [1.0], "b": [2.0]}, whole)
    assert model.damage(frozenset()) == pytest.approx(whole)


def test_a_layer_measured_from_both_ends_counts_with_the_mean():
    """Alone "a" does 2; what is spared without it is 4. The others share what is left of 10."""
    model = DamageModel({"a": [2.0, 0.5], "b": [4.0, 1.0], "c": [4.0, 1.0]}, whole=10.0, without={"a": 6.0})
    assert model.parts["a"] == pytest.approx([3.0, 0.75, 0.0])
    assert model.parts["b"] == pytest.approx([3.5, 0.875, 0.0])
    assert model.damage(raised()) == pytest.approx(10)


def test_a_layer_without_which_it_is_worse_keeps_some_of_its_part():
    model = DamageModel({"a": [2.0], "b": [8.0]}, whole=10.0, without={"a": 12.0})
    assert model.parts["a"] == pytest.approx([0.5, 0.0])


def test_layers_that_do_nothing_alone():
    model = DamageModel({"a": [0.0], "b": [0.0]}, whole=1.0)
    assert model.damage(frozenset()) == 0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8), st.floats(1e-6, 1e6))
@example([2.3e-313], 1.0)
def test_the_limit_is_where_the_damage_is(damages, whole):
    model = DamageModel({str(index): [damage] for index, damage in enumerate(damages)}, whole)
    together = math.fsum(parts[0] for parts in model.parts.values())
    damage = model.damage(frozenset())
    assert damage == 0 or model.limit(damage) == pytest.approx(together, rel=1e-6)


def every_set(parts):
    choices = [[(name, rung) for rung in range(len(rungs))] for name, rungs in parts.items()]
    return [frozenset((name, rung) for name, rung in each if rung) for each in itertools.product(*choices)]


def amount(parts, chosen):
    above = dict(chosen)
    return math.fsum(rungs[above.get(name, 0)] for name, rungs in parts.items())


def test_the_cheapest_layer_that_is_enough():
    knapsack = Knapsack({"a": [5.0, 0.0], "b": [6.0, 0.0], "c": [1.0, 0.0]}, {name: [0.0, cost] for name, cost in
                        (("a", 1.0), ("b", 3.0), ("c", 0.1))})  # fmt: skip
    assert knapsack.cheapest(7.0) == raised("a")
    assert knapsack.cheapest(12.0) == frozenset()
    assert knapsack.cheapest(0.0) == raised("a", "b", "c")
    assert knapsack.cost(raised("a", "c")) == pytest.approx(1.1)


def test_a_rung_in_between_is_taken_where_it_is_enough():
    """A layer of 16-bit activations costs a third of float, and leaves a tenth of the damage."""
    parts = {"a": [10.0, 1.0, 0.0], "b": [2.0, 1.9, 0.0]}
    costs = {"a": [0.0, 1.0, 3.0], "b": [0.0, 1.0, 3.0]}
    knapsack = Knapsack(parts, costs)
    assert knapsack.cheapest(3.0) == {("a", 1)}
    assert knapsack.cheapest(1.0) == {("a", 1), ("b", 2)}
    assert knapsack.cheapest(2.0) in ({("a", 2)}, {("a", 1), ("b", 2)})
    assert knapsack.cheapest(0.0) == {("a", 2), ("b", 2)}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_chosen_sets_keep_the_limit_and_are_nearly_the_cheapest(data):
    rungs = data.draw(st.integers(2, 3))
    values = st.integers(0, 20).map(float)
    parts, costs = {}, {}
    for index in range(data.draw(st.integers(1, 5))):
        parts[str(index)] = [*sorted((data.draw(values) for _ in range(rungs - 1)), reverse=True), 0.0]
        steps = [data.draw(st.integers(1, 10)) for _ in range(rungs - 1)]
        costs[str(index)] = [0.0, *map(float, itertools.accumulate(steps))]
    limit = data.draw(st.integers(0, 40))
    knapsack = Knapsack(parts, costs)
    chosen = knapsack.cheapest(limit)
    assert amount(parts, chosen) <= limit
    cheapest = min(knapsack.cost(each) for each in every_set(parts) if amount(parts, each) <= limit)
    dearest = max(cost for each in costs.values() for cost in each)
    assert knapsack.cost(chosen) <= cheapest + dearest
    # Nothing that was raised can be left out.
    for one in chosen:
        assert amount(parts, chosen - {one}) > limit
