"""Layers that cost nothing on the highest rung."""

import math

from hypothesis import given
from hypothesis import strategies as st

from amct_tensorflow.search.costless import costless_layers

# The products of coordinates in a face mesh: 4 x 4 values, beside convolutions that do the work.
SHARES = {"conv": 0.6, "dw": 0.3996, "coordinates": 0.0003, "scale": 0.0001, "pool": 0.0}
DAMAGES = {"conv": 0.02, "dw": 0.01, "coordinates": 0.5, "scale": 0.002, "pool": 0.011}


def test_what_is_small_and_damages_more_than_half(messages):
    """The median is 0.011, that of the pool, which is not above it."""
    assert costless_layers(DAMAGES, SHARES) == ["coordinates"]
    assert messages[-1].startswith("INFO 1 layer is in float from the start, as that costs 0.03 % of")
    assert messages[-1].endswith("damage than half of the layers: coordinates")


def test_the_most_damaging_come_first():
    assert costless_layers({**DAMAGES, "pool": 0.9}, SHARES) == ["pool", "coordinates"]


def test_a_share_of_a_twentieth_of_a_percent_is_too_much():
    assert costless_layers(DAMAGES, {**SHARES, "coordinates": 0.0005}) == []


def test_what_is_not_known_is_left_alone():
    """Without the coordinates the median is 0.0105, and the pool is above it."""
    assert costless_layers({**DAMAGES, "coordinates": math.nan}, SHARES) == ["pool"]
    assert costless_layers(DAMAGES, {}) == costless_layers({}, SHARES) == costless_layers({"a": math.nan}, SHARES) == []


@given(st.dictionaries(st.text("abc", min_size=1), st.tuples(st.floats(0, 1), st.floats(0, 0.002))))
def test_they_never_cost_more_than_what_is_small(layers):
    damages, shares = ({name: values[index] for name, values in layers.items()} for index in (0, 1))
    found = costless_layers(damages, shares)
    assert len(found) <= len(layers) / 2
    assert sum(shares[name] for name in found) <= 0.0005 * len(found)
