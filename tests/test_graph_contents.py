"""What the benchmark of many networks counts in a graph."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from conftest import load_script
from graphs import build, normal, rng, save, small_net, tf1

import amct_tensorflow as amct

contents = load_script("benchmarks/graph_contents.py").contents


def imported(graph_def):
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    return graph


def small_op_batch_norm(x, channels):
    gamma, variance = (tf.constant(values) for values in rng(1).uniform(0.5, 2.0, (2, channels)).astype(np.float32))
    beta, mean = tf.constant(normal([channels], 2)), tf.constant(normal([channels], 3))
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 0.001)


def test_a_float_net_and_what_is_left_of_it_when_it_is_quantized(workdir):
    model = save(build(small_net), workdir / "net.pb")
    graph = imported(build(small_net))
    found = contents(graph, ["probabilities"])
    assert (found.layers, found.quantized, found.constant_rsqrt) == (5, 0, 0)
    assert (found.scalings, found.shifts) == (3, 4)  # three FusedBatchNorm, and the bias of the logits
    amct.create_quant_config("config.json", graph)
    amct.quantize_model(graph, "config.json", "record.txt", ["probabilities"])
    with tf1.Session(graph=graph) as session:
        session.run("probabilities:0", {"input:0": normal((2, 12, 12, 3))})
    amct.save_model(model, ["probabilities"], "record.txt", "net")
    quantized = tf1.GraphDef.FromString(Path("net_quantized.pb").read_bytes())
    found = contents(imported(quantized), ["probabilities"])
    assert (found.layers, found.quantized, found.scalings, found.shifts) == (5, 5, 0, 0)


def test_a_batch_norm_in_small_ops_scales_and_shifts_once_and_only_what_is_asked_for_counts():
    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="input")
        y = tf.nn.conv2d(x, normal((3, 3, 3, 4)), 1, "SAME")
        y = small_op_batch_norm(y, 4) * 0.5 + y * tf.reduce_mean(y)  # neither a scalar nor data counts
        tf.identity(y, name="output")
        tf.nn.bias_add(y, normal([4]), name="not_asked_for")

    found = contents(imported(build(make)), ["output"])
    assert (found.layers, found.scalings, found.shifts, found.constant_rsqrt) == (1, 1, 1, 1)


def test_layers_in_functions_count_at_each_call_and_products_of_two_values_do_not():
    inner = tf.function(lambda x, weights: tf.nn.conv2d(x, weights, 1, "SAME"), autograph=False)
    outer = tf.function(lambda x, weights: inner(x, weights) + inner(x, weights), autograph=False)

    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 3], name="input")
        y = outer(outer(x, normal((3, 3, 3, 3))), normal((3, 3, 3, 3)))
        tf.matmul(y, y, transpose_b=True, name="output")

    assert contents(imported(build(make)), ["output"]).layers == 4
