"""A part of a graph brings along the functions that it calls, and no others."""

import tensorflow as tf
from graphs import build, normal, run, tf1

from amct_tensorflow.graph.rewrite import subgraph


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
