"""Weights taken out of a graph, and fed to what is left of it."""

import numpy as np
import pytest
import tensorflow as tf

from amct_tensorflow.graph.weights import take_weights_out


def two_products() -> tf.compat.v1.GraphDef:
    """Returns ``y = x @ weights + shift``, a text, and a constant that waits for ``x``."""
    weights = np.arange(600, dtype=np.float32).reshape(2, 300)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 2], name="x")
        shift = tf.constant(np.float32([0.5]), name="shift")
        tf.add(tf.matmul(x, tf.constant(weights, name="weights")), shift, name="y")
        tf.constant([str(number) for number in range(300)], name="texts")
        with tf.control_dependencies([x]):
            tf.identity(tf.constant(weights, name="waiting"), name="z")
    return graph.as_graph_def()


def test_what_is_left_computes_the_same_of_fed_weights():
    rest, weights = take_weights_out(two_products(), {"x", "weights", "shift", "MatMul", "y"})
    assert weights.keys() == {"weights"}
    assert rest.ByteSize() < 600 * 4
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(rest, name="")
    assert graph.get_tensor_by_name("weights:0").shape == (2, 300)
    with tf.compat.v1.Session(graph=graph) as session:
        y = session.run("y:0", {"x:0": [[1, 2]], **{f"{name}:0": each for name, each in weights.items()}})
    np.testing.assert_array_equal(y, [np.arange(300) + 2 * np.arange(300, 600) + 0.5])


@pytest.mark.parametrize("name", ["texts", "waiting"])
def test_what_cannot_be_fed_stays(name):
    graph_def = two_products()
    rest, weights = take_weights_out(graph_def, {"x", name})
    assert not weights
    assert {node.name: node for node in rest.node}[name] == {node.name: node for node in graph_def.node}[name]


def test_weights_begin_where_tensorflow_need_not_copy_them():
    _, weights = take_weights_out(two_products(), {"weights"})
    assert weights["weights"].ctypes.data % 64 == 0
