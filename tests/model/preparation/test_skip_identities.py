"""Nodes that pass their input on are skipped, unless somebody asks for them, or learns from them whether they ran."""

import pytest
import tensorflow as tf
from graphs import build, build_v1, check_same_values, normal, ops_of, prepared, tf1

from amct_tensorflow.model.preparation.skip_identities import skip_identities

X = normal((2, 3), 1)


def placeholder():
    return tf1.placeholder(tf.float32, [None, 3], name="x")


def check(make, expected, keep=("out",), but=()):
    graph_def = build(make)
    rewritten, origins = prepared(graph_def, skip_identities, keep)
    assert ops_of(rewritten) == sorted(expected) and origins == {}
    check_same_values(graph_def, rewritten, {"x": X}, but)


def chain(y):
    y = tf.stop_gradient(tf.identity(y, name="first"))
    y = tf.debugging.check_numerics(tf.raw_ops.PreventGradient(input=y), "bad")
    y = tf1.Print(y, [tf.shape(y)], "shape")
    return tf.raw_ops.CheckNumericsV2(tensor=y, message="bad")


def test_a_chain_is_skipped():
    check(lambda: tf.sin(chain(placeholder()), name="out"), ["Sin"])


def test_weights_behind_an_identity():
    check(lambda: tf.matmul(placeholder(), tf.identity(tf.constant(normal((3, 2), 2))), name="out"), ["MatMul"])


def test_other_outputs_than_the_first():
    def make():
        _, right = tf.split(placeholder(), [1, 2], 1)
        tf.sin(tf.identity(tf.identity(right)), name="out")

    check(make, ["Sin", "SplitV"])


def test_several_at_once():
    """A custom gradient, such as that of swish, leaves an IdentityN."""

    def make():
        x = placeholder()
        first, second = tf.identity_n([tf.sin(x), tf.identity_n([tf.cos(x), x])[0]])
        tf.subtract(second, first, name="out")

    check(make, ["Cos", "Sin", "Sub"])


def test_what_is_asked_for_stays():
    check(lambda: tf.sin(chain(placeholder()), name="out"), ["Identity", "Sin"], ["first", "out"])
    check(lambda: tf.identity(chain(placeholder()), name="out"), ["Identity"])


def test_an_identity_that_waits_or_is_waited_for_stays():
    def make():
        x = placeholder()
        with tf.control_dependencies([tf.random.uniform([])]):
            waits = tf.identity(x)
        waited_for = tf.identity(x)
        with tf.control_dependencies([waited_for]):
            y = tf.sin(waits)
        tf.add(y, tf.cos(waited_for), name="out")

    expected = ["AddV2", "Cos", "Identity", "Identity", "RandomUniform", "Sin"]
    check(make, expected, but=["random_uniform/RandomUniform"])


@pytest.mark.parametrize("flag", [True, False])
def test_identities_of_branches_and_loops_stay(flag):
    def make():
        x = placeholder()
        chosen = tf1.placeholder(tf.bool, [], name="flag")
        y = tf1.cond(chosen, lambda: tf.identity(x), lambda: tf.sin(tf.identity(x)))
        y = tf1.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, tf.sin(tf.identity(v))), [0, y])[1]
        tf.sin(tf.identity(y), name="out")

    graph_def = build_v1(make)
    rewritten, _ = prepared(graph_def, skip_identities)
    check_same_values(graph_def, rewritten, {"x": X, "flag": flag})
    assert ops_of(rewritten).count("Identity") >= ops_of(graph_def).count("Identity") - 1


def test_nothing_to_skip_changes_nothing():
    graph_def = build(lambda: tf.sin(placeholder(), name="out"))
    assert prepared(graph_def, skip_identities)[0] == graph_def
