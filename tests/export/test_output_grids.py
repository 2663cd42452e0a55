"""On which grid the output of a layer is handed on."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, calibrate_and_save, normal, tf1

from amct_tensorflow.export.output_grids import find_outputs_of_layers, grids_of_outputs
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.quantized.quantized_layer import read_layers


def conv(x, seed, channels=4):
    return tf.nn.conv2d(x, normal((1, 1, int(x.shape[-1]), channels), seed), 1, "SAME", name=f"conv{seed}")


def block():
    """conv1, relu -> conv2 -> both an Add and conv3; conv3 and the sum are added; conv4 behind a pool; the end."""
    x = tf1.placeholder(tf.float32, [None, 6, 6, 3], name="x")
    first = tf.nn.relu(conv(x, 1))
    second = conv(first, 2)
    third = conv(second, 3)
    pooled = tf.nn.max_pool2d(tf.add(second, third), 2, 2, "VALID")
    fourth = conv(pooled, 4)
    fifth = conv(tf.nn.max_pool2d(fourth, 3, 3, "VALID"), 5)
    tf.identity(fifth, name="out")


@pytest.fixture
def found():
    view = GraphView(calibrate_and_save(build(block), normal((4, 6, 6, 3), 9)))
    layers = {layer.name: layer for layer in read_layers(view)}
    return layers, find_outputs_of_layers(view, list(layers.values()), ["out"])


def test_the_only_reader_says_it(found):
    layers, outputs = found
    assert outputs["conv1"].grid == layers["conv2"].input_grid and not outputs["conv1"].is_observed


def test_it_is_seen_through_what_only_moves_values(found):
    layers, outputs = found
    assert outputs["conv4"].grid == layers["conv5"].input_grid


MOVES = {
    "reshape": lambda y: tf.reshape(y, [-1, 3, 12, 8]),
    "transpose": lambda y: tf.transpose(y, [0, 2, 1, 3]),
    "pad": lambda y: tf.pad(y, [[0, 0], [1, 1], [0, 2], [0, 0]]),
    "part of an image": lambda y: tf.slice(y, [0, 1, 1, 0], [-1, 4, 4, 8]),
    "every other row": lambda y: y[:, ::2],
    "some channels": lambda y: y[..., 3:],
    "depth to space": lambda y: tf.nn.depth_to_space(y, 2),
    "space to depth": lambda y: tf.nn.space_to_depth(y, 2),
    "concatenation": lambda y: tf.concat([y, y], 1),
    "activation behind": lambda y: tf.nn.relu(tf.nn.depth_to_space(y, 2)),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_whatever_only_moves_values_hands_the_readers_grid_on(move):
    def make():
        y = conv(tf1.placeholder(tf.float32, [None, 6, 6, 3], name="x"), 1, 8)
        tf.identity(conv(move(y), 2), name="out")

    view = GraphView(calibrate_and_save(build(make), normal((4, 6, 6, 3), 9)))
    layers = {layer.name: layer for layer in read_layers(view)}
    outputs = find_outputs_of_layers(view, list(layers.values()), ["out"])
    assert outputs["conv1"].grid == layers["conv2"].input_grid


def test_a_float_op_asks_for_an_observed_range(found):
    _, outputs = found
    assert outputs["conv3"].is_observed and outputs["conv3"].beside_sums is None


@pytest.mark.parametrize(
    ("widening", "shared"),
    [(1.0, True), (1.3, True), (1.4, False)],
)
def test_a_sum_gets_the_factors_of_the_layer_beside_it_unless_they_cut_off_much(found, widening, shared):
    layers, outputs = found
    factors = layers["conv3"].input_grid
    assert outputs["conv2"].is_observed and outputs["conv2"].beside_sums == factors
    observed = ActivationFactors(factors.scale * widening, factors.offset)
    grids = grids_of_outputs({"conv2": outputs["conv2"]}, {outputs["conv2"].end: observed})
    assert grids["conv2"] == (factors if shared else observed)


def test_what_no_layer_reads_stays_in_float(found):
    _, outputs = found
    assert outputs["conv5"].is_final and not outputs["conv5"].is_observed
    observed = ActivationFactors(0.5, 3)
    grids = grids_of_outputs(outputs, {outputs["conv3"].end: observed})
    assert grids["conv3"] == observed and "conv5" not in grids


def test_integers_and_factors_are_those_of_the_model(found):
    layers, _ = found
    for layer in layers.values():
        product = np.float32(layer.input_grid.scale) * layer.weight_scale
        np.testing.assert_allclose(product, layer.deq_scale, rtol=2e-7)  # one rounding each
        assert layer.weights.dtype == np.int8
        np.testing.assert_array_equal(np.rint(layer.float_weights / layer.weight_scale), layer.weights)


@pytest.mark.parametrize("bounds", [(0, 4), (-1, 1)])
def test_it_is_seen_through_what_clips(bounds):
    def make():
        y = conv(tf1.placeholder(tf.float32, [None, 6, 6, 3], name="x"), 1)
        y = tf.minimum(tf.maximum(y, np.float32(bounds[0])), np.float32(bounds[1]))
        tf.identity(conv(y, 2), name="out")

    view = GraphView(calibrate_and_save(build(make), normal((4, 6, 6, 3), 9, 4.0)))
    layers = {layer.name: layer for layer in read_layers(view)}
    output = find_outputs_of_layers(view, list(layers.values()), ["out"])["conv1"]
    assert output.grid == layers["conv2"].input_grid
