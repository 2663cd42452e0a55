"""Where ops that only move channels put them, against what NumPy and TensorFlow do to numbered channels."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import tf1
from hypothesis import given
from hypothesis import strategies as st

from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.ops.channels import Channels
from amct_tensorflow.ops.effects import channels_behind


def numbered(shape, axis):
    """An array whose values tell the channel, the channels being counted by an axis from the end."""
    along = np.arange(shape[axis]).reshape([-1] + [1] * (-1 - axis))
    return np.broadcast_to(along, shape)


def behind(op, channels, constant=None, shape=None, **attributes):
    graph_def = tf1.GraphDef()
    graph_def.node.append(make_node("x", "Placeholder", (), dtype=tf.float32))
    inputs = ["x"]
    if constant is not None:
        graph_def.node.append(make_const("constant", np.asarray(constant, np.int32)))
        inputs.append("constant")
    graph_def.node.append(make_node("y", op, inputs, **attributes))
    view = GraphView(graph_def, {} if shape is None else {"y:0": shape})
    return channels_behind(view, view.nodes["y"], channels)


def check(moved, value):
    """Checks that an array has its channels where they are said to be."""
    assert value.ndim == moved.rank and value.shape[moved.axis] == moved.number
    np.testing.assert_array_equal(value, numbered(value.shape, moved.axis))


@st.composite
def tensors(draw):
    """A shape, and which of its axes, from the end, counts the channels."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    return tuple(shape), draw(st.integers(-len(shape), -1))


@given(tensors(), st.data())
def test_expand_dims(tensor, data):
    shape, axis = tensor
    new = data.draw(st.integers(-len(shape) - 1, len(shape)))
    constant = data.draw(st.sampled_from([new, [new]]))
    moved = behind("ExpandDims", Channels(shape[axis], axis, len(shape)), constant)
    check(moved, np.expand_dims(numbered(shape, axis), new))


@given(tensors(), st.data())
def test_squeeze(tensor, data):
    shape, axis = tensor
    rank = len(shape)
    others = [each for each in range(rank) if each != axis + rank]
    gone = data.draw(st.lists(st.sampled_from(others), unique=True, min_size=1)) if others else []
    shape = tuple(1 if each in gone else length for each, length in enumerate(shape))
    written = [data.draw(st.sampled_from([each, each - rank])) for each in gone]
    moved = behind("Squeeze", Channels(shape[axis], axis, rank), squeeze_dims=written)
    if gone:
        check(moved, np.squeeze(numbered(shape, axis), tuple(gone)))
    else:
        assert moved is None


@given(tensors(), st.data())
def test_transpose(tensor, data):
    shape, axis = tensor
    order = data.draw(st.permutations(range(len(shape))))
    written = [data.draw(st.sampled_from([each, each - len(shape)])) for each in order]
    moved = behind("Transpose", Channels(shape[axis], axis, len(shape)), written)
    check(moved, numbered(shape, axis).transpose(order))


@given(st.integers(1, 3), st.integers(-4, -1))
def test_batch_to_space(block_axes, axis):
    shape = (8, 2, 3, 4)
    block, crops = [2] * block_axes, np.zeros((block_axes, 2), np.int32)
    moved = behind("BatchToSpaceND", Channels(shape[axis], axis, 4), block)
    if axis + 4 > block_axes:
        value = tf.raw_ops.BatchToSpaceND(input=numbered(shape, axis), block_shape=block, crops=crops)
        check(moved, value.numpy())
    else:
        assert moved is None


@pytest.mark.parametrize("rank", [None, 4])
def test_batch_to_space_of_old_form(rank):
    assert behind("BatchToSpace", Channels(3, -1, rank), [[0, 0], [0, 0]], block_size=2) == Channels(3, -1, rank)
    assert behind("BatchToSpace", Channels(3, -3, rank), [[0, 0], [0, 0]], block_size=2) is None


@given(tensors())
def test_ensure_shape(tensor):
    shape, axis = tensor
    check(behind("EnsureShape", Channels(shape[axis], axis, len(shape))), numbered(shape, axis))


@given(tensors(), st.data())
def test_reshape(tensor, data):
    """The last axis is the one that stays, if it keeps its length."""
    shape, axis = tensor
    size = int(np.prod(shape))
    last = data.draw(st.sampled_from([length for length in range(1, size + 1) if size % length == 0]))
    target = (size // last, last)
    moved = behind("Reshape", Channels(shape[axis], axis, len(shape)), target, shape=target)
    if axis == -1 and last == shape[-1]:
        check(moved, numbered(shape, axis).reshape(target))
    else:
        assert moved is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"op": "Squeeze", "squeeze_dims": [1]},
        {"op": "ExpandDims", "constant": 1},
        {"op": "Transpose", "constant": [0, 3, 1, 2]},
        {"op": "BatchToSpaceND", "constant": [2, 2]},
    ],
    ids=lambda arguments: arguments["op"],
)
def test_nothing_is_known_without_the_number_of_axes(arguments):
    assert behind(channels=Channels(3, -1, 4), **arguments) is not None
    assert behind(channels=Channels(3, -1, None), **arguments) is None


@pytest.mark.parametrize("shape", [None, (), (None, 4, None), (6, 2)])
def test_a_reshape_to_an_unknown_or_another_last_axis(shape):
    assert behind("Reshape", Channels(3, -1, 4), [0], shape=shape) is None


def test_a_squeeze_of_whatever_has_length_one_may_take_the_channels():
    assert behind("Squeeze", Channels(1, -1, 4)) is None
    assert behind("Squeeze", Channels(1, -1, 4), squeeze_dims=[-1]) is None


def test_other_ops_do_more_than_to_move_channels():
    assert behind("Relu", Channels(3, -1, 4)) is None
