"""The whole of preparation: whatever a graph consists of, it computes afterwards what it did before."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build_v1, check_same_values, normal, run, tf1, unoptimized
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amct_tensorflow.graph.rewrite import subgraph
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.fusion import fuse
from amct_tensorflow.model.fusion_before import fold_before
from amct_tensorflow.model.preparation.prepare import prepare

FEEDS = {"x": normal((3, 4), 1), "flag": True}


class Steps:
    """Ways to go on from tensors [images, 4]; each is given one, another one, and a number to vary it by."""

    def identity(self, y, _other, seed):
        return [tf.identity, tf.stop_gradient, lambda v: tf.debugging.check_numerics(v, "bad"), tf.raw_ops.Snapshot][
            seed % 4
        ](**{"input": y} if seed % 4 == 3 else {["input", "input", "v"][seed % 4]: y})

    def layer(self, y, _other, seed):
        weights = tf.identity(tf.constant(normal((4, 4), seed, 0.5)))
        return tf.matmul(y, weights, transpose_b=bool(seed % 2))

    def bias(self, y, _other, seed):
        return tf.nn.bias_add(y, tf.constant(normal((4,), seed)) * 0.5 + 0.1)

    def batch_norm(self, y, _other, seed):
        mean, beta, gamma = (tf.constant(normal((4,), seed + index)) for index in range(3))
        return tf.nn.batch_normalization(y, mean, tf.constant([0.5, 1, 2, 3]), beta, gamma, 1e-3)

    def arithmetic(self, y, _other, seed):
        constant = tf.constant(normal([(), (4,), (1, 4), (1,)][seed % 4], seed) + 2, tf.float32)
        return [tf.add, tf.subtract, tf.multiply, tf.divide][seed % 4](*([y, constant] if seed % 3 else [constant, y]))

    def activation(self, y, _other, seed):
        return [tf.nn.relu, tf.sin, tf.tanh][seed % 3](y)

    def both(self, y, other, seed):
        return [tf.add, tf.multiply, tf.maximum][seed % 3](y, other)

    def squeezed(self, y, _other, seed):
        return (
            tf.squeeze(tf.nn.bias_add(tf.expand_dims(y, seed % 2), normal((4,), seed)), [(seed // 2) % 2])
            if (seed % 2 == (seed // 2) % 2)
            else tf.squeeze(tf.expand_dims(y, 1), [1])
        )

    def reshaped(self, y, _other, seed):
        inner = tf.reshape(y, [[-1, 2, 2], [-1], [-1, 1, 4]][seed % 3])
        return tf.reshape(inner + 1.0 if seed % 2 else inner, [-1, 4])

    def parts(self, y, other, seed):
        left, right = tf.split(y, 2, 1)
        layers = [tf.matmul(part, normal((2, 2), seed + index)) for index, part in enumerate((left, right))]
        return (
            tf.concat(layers, 1) * normal((4,), seed) + normal((4,), seed + 1)
            if seed % 2
            else tf.concat([right, left], 1)
        )

    def function(self, y, other, seed):
        inner = tf.function(lambda v, w: (tf.sin(v) + tf.constant(normal((4,), seed)), w), autograph=False)
        outer = tf.function(lambda v, w: inner(*inner(v, w)), autograph=False)
        return [inner, outer][seed % 2](y, other)[(seed // 2) % 2]

    def flag_that_is_known(self, y, other, seed):
        flag = tf1.placeholder_with_default(bool(seed % 2), [])
        flag = tf.logical_not(flag) if seed % 3 else flag
        return tf1.cond(flag, lambda: self.random(tf.sin(y), other, seed), lambda: self._one_of(y, other, seed))

    def flag_that_is_not(self, y, other, seed):
        flag = tf1.get_default_graph().get_tensor_by_name("flag:0")
        return tf1.cond(flag, lambda: self._one_of(y, other, seed), lambda: tf.constant(normal((1, 4), seed)) + y)

    def loop(self, y, other, seed):
        def body(i, v):
            return i + 1, tf.tanh(self._one_of(v, other, seed))

        return tf1.while_loop(lambda i, _: i < 2, body, [0, y], [tf.TensorShape([]), tf.TensorShape([None, 4])])[1]

    def waits(self, y, other, seed):
        with tf.control_dependencies([other, tf.debugging.Assert(tf.reduce_all(tf.math.is_finite(y)), [y])]):
            z = [tf.identity, tf.sin, tf.no_op][seed % 3]() if seed % 3 == 2 else [tf.identity, tf.sin][seed % 3](y)
        with tf.control_dependencies([z]):
            return tf.identity(y)

    def random(self, y, _other, seed):
        return y + tf.multiply(0.0, tf.random.uniform([4], seed=seed), name="nothing")

    def _one_of(self, y, other, seed):
        return [self.layer, self.function, self.reshaped, self.squeezed, self.arithmetic, self.both][seed % 6](
            y, other, seed
        )


NAMES = [name for name in vars(Steps) if not name.startswith("_")]
STEP = st.tuples(st.sampled_from(NAMES), st.integers(0, 20), st.integers(0, 20), st.integers(0, 11))


def network(steps):
    """Applies steps to the tensor that is counted from the last one made, and to another counted so."""
    tf1.placeholder(tf.bool, [], name="flag")
    tensors = [tf1.placeholder(tf.float32, [None, 4], name="x")]
    for index, (name, first, second, seed) in enumerate(steps):
        with tf1.name_scope(f"step{index}"):
            y, other = tensors[-1 - first % len(tensors)], tensors[-1 - second % len(tensors)]
            tensors.append(tf.identity(getattr(Steps(), name)(y, other, seed), name="y"))
    tf.identity(tf.tanh(tensors[-1]), name="out")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEP, min_size=1, max_size=7), data=st.data())
def test_any_graph_means_the_same_prepared_and_fused(steps, data):
    graph_def = build_v1(lambda: network(steps))
    asked_for = data.draw(st.sets(st.sampled_from([f"step{index}/y" for index in range(len(steps))])))
    outputs = [*sorted(asked_for), "out"]
    graph = prepare(GraphView(graph_def), outputs, "test")
    assert set(outputs) <= graph.view.nodes.keys()
    but = {name for name in graph.view.nodes if "random_uniform" in name}
    check_same_values(graph_def, graph.view.graph_def, FEEDS, but)
    for name in graph.view.nodes.keys() - graph_def_names(graph_def):
        assert set(graph.origins[name]) <= graph_def_names(graph_def) and graph.origins[name]
    behind = fuse(graph.shaped, keep=outputs, origins=graph.origins)
    fused = subgraph(fold_before(behind, outputs, ()).graph_def, outputs)
    expected, actual = (run(each, outputs, present(each), unoptimized()) for each in (graph_def, fused))
    for name, one, other in zip(outputs, expected, actual, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-3, err_msg=name)


def graph_def_names(graph_def):
    return {node.name for node in graph_def.node}


def present(graph_def):
    return {name: value for name, value in FEEDS.items() if name in graph_def_names(graph_def)}


def test_what_is_prepared_stays_as_it_is():
    graph_def = build_v1(lambda: network([(name, 0, 1, 1) for name in NAMES if name != "random"]))
    once = prepare(GraphView(graph_def), ["out"], "test").view.graph_def
    assert prepare(GraphView(once), ["out"], "test").view.graph_def == once


@pytest.mark.parametrize("name", NAMES)
def test_every_step_of_the_property_is_one(name):
    """A property of graphs that cannot be built would hold."""
    for seed in range(12):
        graph_def = build_v1(lambda seed=seed: network([("layer", 0, 0, 3), (name, 0, 1, seed)]))
        assert np.isfinite(run(graph_def, ["out"], FEEDS)[0]).all()
