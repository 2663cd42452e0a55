"""Operators of an edited model stand behind those that they read, and none is left that nobody needs."""

from hypothesis import given
from hypothesis import strategies as st

from amct_tensorflow.export.running_order import in_running_order


@st.composite
def graphs(draw):
    """Operators (name, inputs, outputs) in any order, and the tensors that are wanted."""
    operators, tensors = [], ["x"]
    for index in range(draw(st.integers(1, 9))):
        inputs = draw(st.lists(st.sampled_from(tensors), max_size=3))
        outputs = [f"{index}:{port}" for port in range(draw(st.integers(1, 2)))]
        operators.append((str(index), inputs, outputs))
        tensors.extend(outputs)
    return draw(st.permutations(operators)), draw(st.lists(st.sampled_from(tensors), max_size=3))


@given(graphs())
def test_each_stands_behind_those_it_reads_and_is_needed(graph):
    operators, wanted = graph
    found = in_running_order(operators, lambda each: each[1], lambda each: each[2], wanted)
    producers = {tensor: name for name, _, outputs in operators for tensor in outputs}
    inputs = {name: read for name, read, _ in operators}
    needed, waiting = set(), list(wanted)
    while waiting:
        name = producers.get(waiting.pop())
        if name is not None and name not in needed:
            needed.add(name)
            waiting.extend(inputs[name])
    names = [name for name, _, _ in found]
    assert sorted(names) == sorted(needed)
    for name in names:
        behind = {producers[tensor] for tensor in inputs[name] if tensor in producers}
        assert behind <= set(names[: names.index(name)])


def test_operators_come_in_the_order_in_which_what_they_read_is_there():
    operators = [
        ("last", ["b", "c"], ["d"]), ("second", ["a"], ["b", "c"]), ("third", ["c"], ["e"]), ("first", [], ["a"]),
    ]  # fmt: skip
    found = in_running_order(operators, lambda each: each[1], lambda each: each[2], ["d", "e"])
    assert [name for name, _, _ in found] == ["first", "second", "last", "third"]
