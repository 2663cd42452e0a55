"""What follows from constants alone, and what does not."""

import numpy as np
import tensorflow as tf
from graphs import build, tf1

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.ops.varying import varying_nodes


def varying(make, *names):
    view = GraphView(build(make))
    return [name for name in names if name in varying_nodes(view)]


def test_data_chance_and_what_may_be_fed_vary():
    def make():
        weights = tf.constant(np.ones(2, np.float32), name="weights")
        tf.add(tf1.placeholder(tf.float32, [2], name="x"), weights, name="of_data")
        tf.identity(tf1.placeholder_with_default(weights, [2], name="default"), name="of_default")
        tf.square(weights, name="of_constants")
        with tf.control_dependencies([tf1.random_normal([], name="chance")]):
            tf.square(weights, name="waits")

    names = ["weights", "x", "of_data", "of_default", "of_constants", "chance", "waits"]
    assert varying(make, *names) == ["x", "of_data", "of_default", "chance"]


def test_what_a_loop_or_a_branch_hands_on_does_not_vary():
    """Keras writes the weights of a recurrent layer so, if the loop was a function once."""

    def make():
        tf1.disable_control_flow_v2()
        weights = tf.constant(np.ones((2, 2), np.float32), name="weights")
        x = tf1.placeholder(tf.float32, [1, 2], name="x")

        def body(i, value, handed):
            return i + 1, tf.matmul(value, handed, name="product"), tf.identity(handed, name="handed")

        tf1.while_loop(lambda i, *_: i < 3, body, [tf.constant(0), x, weights], name="loop")
        tf1.cond(x[0, 0] > 0, lambda: tf.identity(weights, name="in_branch"), lambda: weights)

    names = ["loop/handed", "loop/product", "loop/Less", "cond/in_branch"]
    assert varying(make, *names) == ["loop/product", "loop/Less"]
