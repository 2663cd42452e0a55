"""Weights that are taken transposed are transposed once."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, build_v1, calibrate_and_save, check_same_values, normal, prepared, run, signal_to_noise, tf1

from amct_tensorflow.errors import ModelError
from amct_tensorflow.model.preparation.prepare import transpose_weights


def product(shape, weights, **flags):
    def make():
        x = tf1.placeholder(tf.float32, [None, *shape[1:]], name="x")
        tf.nn.relu(tf.matmul(x, weights, name="layer", **flags), name="out")

    return build(make)


@pytest.mark.parametrize("shape", [(4, 20), (4, 3, 20)])
def test_transposed_weights_are_quantized(shape):
    graph_def, x = product(shape, normal((5, 20), 1), transpose_b=True), normal(shape, 2)
    rewritten, added = prepared(graph_def, transpose_weights)
    assert added == {"layer/transposed_weights": ("layer",)}
    assert {node.name for node in rewritten.node} == {"x", "layer", "layer/transposed_weights", "out"}
    quantized = calibrate_and_save(graph_def, x)
    expected, same, actual = (run(each, ["out"], {"x": x})[0] for each in (graph_def, rewritten, quantized))
    np.testing.assert_allclose(same, expected, rtol=1e-6, atol=1e-6)
    assert signal_to_noise(expected, actual) > 30


def test_a_product_without_its_weights_is_refused():
    graph_def = product((4, 20), normal((5, 20)), transpose_b=True)
    (layer,) = [node for node in graph_def.node if node.name == "layer"]
    del layer.input[1]
    with pytest.raises(ModelError, match="TensorFlow cannot import"):
        prepared(graph_def, transpose_weights)


@pytest.mark.parametrize(
    "graph_def",
    [
        product((4, 20), normal((20, 5)), transpose_b=False),
        product((4, 20), normal((4, 5)), transpose_a=True),
        product((4, 3, 20), normal((4, 5, 20)), transpose_b=True),
    ],
    ids=["straight", "transposed data", "a matrix per image"],
)
def test_other_products_stay(graph_def):
    rewritten, added = prepared(graph_def, transpose_weights)
    assert added == {} and rewritten == graph_def


def test_weights_in_a_loop_stay():
    """They are a constant of the loop's own; one from outside could not be read there."""

    def make():
        def body(i, v):
            return i + 1, tf.matmul(v, tf.constant(normal((4, 4), 1)), transpose_b=True)

        x = tf1.placeholder(tf.float32, [None, 4], name="x")
        tf.identity(tf1.while_loop(lambda i, _: i < 3, body, [0, x])[1], name="out")

    graph_def = build_v1(make)
    assert prepared(graph_def, transpose_weights)[0] == graph_def
    check_same_values(graph_def, graph_def, {"x": normal((2, 4), 2)})
