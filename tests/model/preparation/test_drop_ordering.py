"""Control edges that only order go; those that tell whether a node runs, or that something has happened, stay."""

import tensorflow as tf
from graphs import build, build_v1, check_same_values, node_of, normal, ops_of, prepared, run, tf1

from amct_tensorflow.model.preparation.drop_ordering import drop_ordering
from amct_tensorflow.model.preparation.inline_functions import inline_functions

X = normal((2, 3), 1)


def placeholder():
    return tf1.placeholder(tf.float32, [None, 3], name="x")


def waits_of(graph_def, name):
    return [text for text in node_of(graph_def, name).input if text.startswith("^")]


def test_an_output_does_not_keep_alive_what_it_waits_for():
    def make():
        x = placeholder()
        weights = tf.identity(tf.constant(normal((3, 3), 2)), name="weights")
        with tf.control_dependencies([weights]):
            everything = tf.no_op("everything")
        with tf.control_dependencies([everything]):
            tf.identity(x, name="out")

    graph_def = build(make)
    rewritten, origins = prepared(graph_def, drop_ordering)
    assert {node.name for node in rewritten.node} == {"x", "out"} and origins == {}
    check_same_values(graph_def, rewritten, {"x": X})


def test_checks_and_messages_are_left_out_and_told(messages):
    def make():
        x = placeholder()
        check = tf.raw_ops.Assert(condition=tf.reduce_all(x > -99), data=[x])
        with tf.control_dependencies([check, tf.print("seen", x)]):
            tf.identity(x, name="out")

    graph_def = build(make)
    rewritten, _ = prepared(graph_def, drop_ordering)
    assert ops_of(rewritten) == ["Identity"]
    check_same_values(graph_def, rewritten, {"x": X})
    assert [text for text in messages if "2 nodes are left out" in text]


def test_a_check_that_nothing_waits_for_is_asked_for_itself():
    def make():
        x = placeholder()
        tf1.Assert(tf.reduce_all(x > -99), [x], name="check")
        tf.identity(x, name="out")

    graph_def = build(make)
    assert prepared(graph_def, drop_ordering)[0] == graph_def


def test_a_message_that_passes_data_on_stays():
    def make():
        tf.identity(tf1.Print(placeholder(), ["seen"], name="print"), name="out")

    assert "Print" in ops_of(prepared(build(make), drop_ordering)[0])


def test_what_has_an_effect_is_waited_for():
    def make():
        x = placeholder()
        variable = tf1.get_variable("variable", initializer=1.0, use_resource=True)
        with tf.control_dependencies([variable.assign(5.0)]):
            behind = tf.no_op("behind")
        with tf.control_dependencies([behind]):
            tf.identity(x * variable.read_value(), name="out")

    graph_def = build(make)
    assert prepared(graph_def, drop_ordering)[0] == graph_def
    assert waits_of(graph_def, "Read/ReadVariableOp") == ["^behind"]


def test_a_function_has_an_effect_if_something_in_it_has_one():
    def make(effect):
        x = placeholder()
        variable = tf1.get_variable("variable", initializer=1.0, use_resource=True)
        inner = tf.function(lambda: variable.assign(5.0) if effect else tf.constant(0.0), autograph=False)
        outer = tf.function(lambda: inner() + 1.0, autograph=False)
        with tf.control_dependencies([outer()]):
            tf.identity(x, name="out")

    for effect in (True, False):
        graph_def = build(lambda effect=effect: make(effect))
        assert bool(waits_of(prepared(graph_def, drop_ordering)[0], "out")) is effect


def test_in_which_branch_and_round_a_node_runs_stays():
    def make():
        x = placeholder()
        flag = tf1.placeholder(tf.bool, [], name="flag")
        y = tf1.cond(flag, lambda: tf.constant(1.0), lambda: tf.constant(2.0))
        _, z = tf1.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, v + tf.constant(1.0)), [0, y])
        tf.identity(x + z, name="out")

    graph_def = build_v1(make)
    assert prepared(graph_def, drop_ordering)[0] == graph_def


def test_that_a_loop_or_branch_has_ended_only_orders():
    """So TensorFlow writes a loop of Keras when it freezes it; it would keep alive what nothing reads."""

    def make():
        x = placeholder()
        flag = tf1.placeholder(tf.bool, [], name="flag")
        y = tf1.cond(flag, lambda: tf.sin(x), lambda: x)
        _, z = tf1.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, v + 1.0), [0, x])
        with tf.control_dependencies([y, z]):
            ended = tf.no_op("ended")
        with tf.control_dependencies([ended]):
            tf.identity(x, name="out")

    graph_def = build_v1(make)
    rewritten, _ = prepared(graph_def, drop_ordering)
    assert waits_of(rewritten, "out") == [] and "NoOp" not in ops_of(rewritten)
    check_same_values(graph_def, rewritten, {"x": X, "flag": True})


def test_a_function_without_an_effect_that_is_inlined_leaves_nothing_to_wait_for():
    def make():
        x = placeholder()

        @tf.function(autograph=False)
        def checked(v):
            tf.debugging.Assert(tf.reduce_all(v > -99), [v])
            return v + 1.0

        tf.identity(checked(x), name="out")

    graph_def = build(make)
    rewritten, _ = prepared(graph_def, lambda graph: drop_ordering(inline_functions(graph)))
    assert ops_of(rewritten, "Identity") == ["AddV2"]
    assert run(rewritten, ["out"], {"x": X})[0].tolist() == run(graph_def, ["out"], {"x": X})[0].tolist()
