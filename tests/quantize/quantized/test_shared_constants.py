"""Equal constants of a quantized graph stand once, under short names, and it computes the same."""

import numpy as np
import tensorflow as tf
from graphs import build, node_of, normal, run, tf1

from amct_tensorflow.graph.nodes import make_const
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.quantize.quantized.shared_constants import share_constants

SCOPE = "a/long/scope/of/a/model/that/was/exported"


def slices():
    """Three slices, each with constants of its own, of which [0] and [1] stand several times."""
    x = tf1.placeholder(tf.float32, [4, 5], name="x")
    with tf1.name_scope(SCOPE):
        parts = [x[first:, 1:] * tf.constant(0.5, name=f"half_{first}") for first in (0, 1, 0)]
    tf.concat(parts, 0, name="out")


def test_equal_constants_stand_once_and_the_graph_computes_the_same():
    before = build(slices)
    after = build(slices)
    made = share_constants(after, "q", ["out"])
    constants = [node for node in after.node if node.op == "Const"]
    values = [GraphView(after).constant(node.name).tolist() for node in constants]
    # Slices begin at [0, 1] or [1, 1], end at [0, 0] and step by [1, 1]; [1, 1] stands for a begin and for all steps.
    assert sorted(map(str, values)) == ["0", "0.5", "[0, 0]", "[0, 1]", "[1, 1]"]
    assert all(node.name in made and len(node.name) < 5 for node in constants)
    assert sorted(len(names) for names in made.values()) == [1, 2, 3, 3, 4]
    named = {name for names in made.values() for name in names}
    assert named == {node.name for node in before.node if node.op == "Const"}
    x = np.arange(20, dtype=np.float32).reshape(4, 5)
    assert np.array_equal(run(before, ["out"], {"x": x})[0], run(after, ["out"], {"x": x})[0])
    assert after.ByteSize() < 0.6 * before.ByteSize()


def test_what_is_asked_for_or_waits_or_may_be_weights_keeps_its_name():
    def make():
        x = tf1.placeholder(tf.float32, [2, 3], name="x")
        asked = tf.constant([1, 2], name="asked")
        with tf.control_dependencies([x]):
            waits = tf.constant(3.0, name="waits")
        waited = tf.constant(3.0, name="waited")
        with tf.control_dependencies([waited]):
            reads = tf.identity(x, name="reads")
        weights = tf.constant(np.arange(3, dtype=np.float32), name="weights")
        y = reads * weights * waits * tf.constant(3.0, name="plain")
        tf.identity(y + tf.cast(asked[0], tf.float32), name="out")

    graph = build(make)
    before = run(graph, ["out"], {"x": np.ones((2, 3), np.float32)})[0]
    made = share_constants(graph, "q", ["out", "asked"])
    assert {name for names in made.values() for name in names}.isdisjoint({"asked", "waits", "waited", "weights"})
    assert ("plain",) in made.values()
    assert np.array_equal(run(graph, ["out"], {"x": np.ones((2, 3), np.float32)})[0], before)


def test_weights_that_several_nodes_hold_stand_once():
    values = normal((3, 4), 1)

    def make():
        x = tf1.placeholder(tf.float32, [2, 3], name="x")
        tf.add_n([x @ tf.constant(values, name=f"weights_{index}") for index in range(3)], name="out")

    graph = build(make)
    made = share_constants(graph, "q", ["out"])
    assert list(made.values()) == [("weights_0", "weights_1", "weights_2")]
    assert sum(node.op == "Const" for node in graph.node) == 1


def test_zeros_of_either_sign_types_and_devices_are_unlike():
    graph = tf1.GraphDef()
    for name, value in {
        "minus": np.float32(-0.0),
        "plus": np.float32(0.0),
        "whole": np.int32(0),
        "vector": np.zeros(1, np.float32),
    }.items():
        graph.node.append(make_const(f"long_name_{name}", np.asarray(value)))
    other = make_const("long_name_elsewhere", np.asarray(np.float32(0.0)))
    other.device = "/device:CPU:0"
    graph.node.append(other)
    made = share_constants(graph, "q", [])
    assert len(graph.node) == len(made) == 5


def test_a_short_name_that_the_model_has_is_left_to_it():
    def make():
        x = tf1.placeholder(tf.float32, [2, 3], name="x")
        taken = tf.identity(x, name="q/k0")
        tf.multiply(taken, tf.constant(2.0, name="a_factor_with_a_name"), name="out")

    graph = build(make)
    assert list(share_constants(graph, "q", ["out"])) == ["q/k1"]
    assert node_of(graph, "q/k0").op == "Identity"
