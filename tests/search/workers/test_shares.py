"""Shares: together they are the whole, in order, and split no batch."""

from hypothesis import example, given
from hypothesis import strategies as st

from amct_tensorflow.search.workers.shares import WHOLE, Share


@given(st.integers(0, 400), st.integers(1, 40), st.integers(1, 12))
@example(total=0, unit=32, count=3)
@example(total=33, unit=32, count=3)
def test_blocks_make_up_the_whole_and_cut_no_unit(total, unit, count):
    blocks = [Share(index, count).of(total, unit) for index in range(count)]
    assert [index for block in blocks for index in block] == list(range(total))
    assert all(block.start % unit == 0 or not block for block in blocks)
    units = [-(-len(block) // unit) for block in blocks]
    assert max(units) - min(units) <= 1


def test_by_hand():
    assert [Share(index, 3).of(100, 32) for index in range(3)] == [range(32), range(32, 64), range(64, 100)]
    assert WHOLE.of(100, 32) == range(100)
    assert str(Share(1, 4)) == "share 2 of 4"
