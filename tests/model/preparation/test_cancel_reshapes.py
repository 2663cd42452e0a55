"""Shape ops that undo each other go; what only looks so stays."""

import pytest
import tensorflow as tf
from graphs import build, build_v1, check_same_values, normal, ops_of, prepared, tf1

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.preparation.cancel_reshapes import cancel_reshapes
from amct_tensorflow.model.preparation.prepare import prepare

X = normal((2, 1, 3), 1)


def placeholder():
    return tf1.placeholder(tf.float32, [None, 1, 3], name="x")


def check(body, expected, keep=("out",)):
    """Checks which ops are left of ``body``, and the values of all that both graphs have."""

    def make():
        tf.sin(body(placeholder()), name="out")

    graph_def = build(make)
    rewritten, origins = prepared(graph_def, cancel_reshapes, keep)
    assert ops_of(rewritten) == sorted([*expected, "Sin"]) and origins == {}
    check_same_values(graph_def, rewritten, {"x": X})


@pytest.mark.parametrize(
    "body",
    [
        lambda x: tf.expand_dims(tf.squeeze(x, [1]), 1),
        lambda x: tf.squeeze(tf.expand_dims(x, 1), [1]),
        lambda x: tf.squeeze(tf.expand_dims(tf.expand_dims(tf.squeeze(x, [1]), 1), 0), [0]),
    ],
)
def test_a_pair_that_undoes_itself(body):
    check(body, [])


def test_two_pairs_one_inside_the_other_take_two_rounds():
    def make():
        tf.sin(tf.squeeze(tf.squeeze(tf.expand_dims(tf.expand_dims(placeholder(), 1), 2), [2]), [1]), name="out")

    assert ops_of(prepare(GraphView(build(make)), ["out"], "test").view.graph_def) == ["Sin"]


def test_three_in_a_row():
    check(lambda x: tf.expand_dims(tf.squeeze(tf.expand_dims(x, 1), [1]), 1), ["ExpandDims"])


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (lambda x: tf.expand_dims(tf.squeeze(x, [1]), 0), ["ExpandDims", "Squeeze"]),
        (lambda x: tf.expand_dims(tf.squeeze(x, [1]), -1), ["ExpandDims", "Squeeze"]),
        (lambda x: tf.squeeze(tf.expand_dims(x, 0), [2]), ["ExpandDims", "Squeeze"]),
        (lambda x: tf.squeeze(tf.expand_dims(x, 0)), ["ExpandDims", "Squeeze"]),
        (lambda x: tf.squeeze(tf.expand_dims(x, 1), [1, 2]), ["ExpandDims", "Squeeze"]),
        (lambda x: tf.squeeze(tf.squeeze(tf.expand_dims(x, 0), [2])[:1], [0]), None),
    ],
    ids=["other axis", "from the end", "other one", "all of them", "more of them", "not next to each other"],
)
def test_what_is_no_pair_stays(body, left):
    def make():
        tf.sin(body(placeholder()), name="out")

    graph_def = build(make)
    assert prepared(graph_def, cancel_reshapes)[0] == graph_def
    assert left is None or ops_of(graph_def) == sorted([*left, "Sin"])


def test_of_reshapes_the_last_is_enough():
    check(lambda x: tf.reshape(tf.reshape(x, [-1]), [-1, 3, 1]), ["Reshape"])
    check(lambda x: tf.reshape(tf.reshape(x, [3, -1]), tf.shape(x)), ["Reshape", "Shape"])


def test_the_first_of_two_reshapes_stays_for_another_reader():
    def body(x):
        flat = tf.reshape(x, [-1], name="flat")
        return tf.reshape(flat, [-1, 3]) + tf.reduce_sum(flat)

    check(body, ["AddV2", "Reshape", "Reshape", "Sum"])


def test_what_is_asked_for_stays():
    def body(x):
        return tf.expand_dims(tf.squeeze(x, [1], name="inner"), 1, name="outer")

    check(body, ["ExpandDims", "Squeeze"], ["outer", "out"])
    check(body, ["Squeeze"], ["inner", "out"])


def test_a_pair_that_something_waits_for_stays():
    """It would be found again and again."""

    def make():
        x = placeholder() + tf.random.uniform([])
        y = tf.expand_dims(tf.squeeze(x, [1]), 1)
        with tf.control_dependencies([y]):
            z = tf.sin(x)
        tf.add(y, z, name="out")

    graph_def = build(make)
    assert prepared(graph_def, cancel_reshapes)[0] == graph_def
    prepare(GraphView(graph_def), ["out"], "test")


@pytest.mark.parametrize("flag", [True, False])
def test_what_waits_to_be_run_in_a_branch_stays(flag):
    """What stands before the branch runs always: its value would reach the Merge from the other branch, too."""

    def make():
        x = placeholder()
        flat = tf.reshape(x, [-1])

        def taken():
            return tf.reshape(flat, [3, -1])

        y = tf1.cond(tf1.placeholder(tf.bool, [], name="flag"), taken, lambda: tf.reshape(x, [-1, 3]) * 2.0)
        tf.sin(tf.reshape(y, [-1]), name="out")

    graph_def = build_v1(make)
    for node in graph_def.node:  # as whoever rewrites graphs may write it: the branch is known by a control edge alone
        if node.name == "cond/Reshape":
            node.input[0] = "Reshape"
            node.input.append("^cond/switch_t")
    rewritten, _ = prepared(graph_def, cancel_reshapes)
    check_same_values(graph_def, rewritten, {"x": X, "flag": flag})


def test_in_a_loop_they_stay():
    def make():
        def body(i, v):
            return i + 1, tf.expand_dims(tf.squeeze(v, [1]), 1)

        tf.sin(tf1.while_loop(lambda i, _: i < 3, body, [0, placeholder()])[1], name="out")

    graph_def = build_v1(make)
    assert prepared(graph_def, cancel_reshapes)[0] == graph_def
