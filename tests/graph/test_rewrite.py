"""A part of a graph brings along the functions that it calls, and an edited one the constants that are read."""

import numpy as np
import tensorflow as tf
from graphs import build, normal, run, tf1

from amct_tensorflow.graph.nodes import make_const
from amct_tensorflow.graph.rewrite import GraphEditor, subgraph
from amct_tensorflow.graph.view import GraphView


def test_functions_that_nothing_calls_any_more_are_left_out():
    """With their weights they would make the quantized model larger than the float one."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 3], name="x")
        inner = tf.function(lambda v: tf.sin(v) + 1.0, autograph=False)
        tf.identity(tf.function(lambda v: inner(v) * 2.0, autograph=False)(x), name="out")
        other = tf.function(lambda v: tf.matmul(v, tf.constant(normal((3, 300), 1))), autograph=False)
        tf.identity(other(x), name="other")
        taken = tf.cond(tf.reduce_sum(x) > 0, lambda: inner(x), lambda: x)
        _, rounds = tf.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, inner(v)), [0, taken])
        tf.identity(rounds, name="control_flow")

    graph_def, x = build(make), normal((2, 3), 2)
    for output in ("out", "other", "control_flow"):
        part = subgraph(graph_def, [output])
        assert 0 < len(part.library.function) < len(graph_def.library.function)
        assert run(part, [output], {"x": x})[0].tolist() == run(graph_def, [output], {"x": x})[0].tolist()
    assert subgraph(graph_def, ["out"]).ByteSize() < 3 * 300 * 4
    assert not subgraph(graph_def, ["x"]).library.function


def test_a_constant_that_is_replaced_is_dropped_if_nothing_else_reads_it():
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [2], name="x")
        for name, weights in {"alone": [1.0, 2.0], "asked_for": [3.0, 4.0]}.items():
            tf.add(x, tf.constant(weights, name=name), name=f"of_{name}")
        shared = tf.constant([5.0, 6.0], name="shared")
        tf.add(tf.add(x, shared, name="one"), shared, name="other")
    editor = GraphEditor(GraphView(graph.as_graph_def()))
    const = editor.add(make_const("new", np.float32([7, 8])), like="x")
    for node in ("of_alone", "of_asked_for", "one"):
        editor.replace_constant(node, 1, const, keep=["asked_for"])
    nodes = {node.name: list(node.input) for node in editor.graph_def().node}
    assert nodes.keys() == {"x", "new", "of_alone", "asked_for", "of_asked_for", "shared", "one", "other"}
    assert [nodes[name] for name in ("of_alone", "of_asked_for", "one")] == [["x", "new"]] * 3
