"""Branches that a constant, or the default of a flag, decides; all others stay as they are."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, build_v1, check_same_values, node_of, normal, ops_of, prepared, run, tf1

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.model.preparation.decide_branches import decide_branches, decide_flags
from amct_tensorflow.model.preparation.prepare import prepare

X = normal((2, 3), 1)


def placeholder():
    return tf1.placeholder(tf.float32, [None, 3], name="x")


def decided(graph_def, keep=("out",)):
    """The graph as the whole of preparation makes it: predicates are computed, too."""
    return prepare(GraphView(graph_def), keep, "test").view.graph_def


@pytest.mark.parametrize("flag", [True, False])
def test_a_constant_decides(flag):
    def make():
        x = placeholder()
        tf.identity(tf1.cond(tf.constant(flag), lambda: tf.sin(x), lambda: tf.cos(x)), name="out")

    graph_def = build_v1(make)
    rewritten, _ = prepared(graph_def, decide_branches)
    assert ops_of(rewritten, "Identity") == ["Sin" if flag else "Cos"]
    check_same_values(graph_def, rewritten, {"x": X})


@pytest.mark.parametrize("default", [True, False])
@pytest.mark.parametrize("negated", [True, False])
def test_a_flag_is_what_it_is_by_default(default, negated, messages):
    def make():
        x = placeholder()
        flag = tf1.placeholder_with_default(default, [], name="flag")
        flag = tf.logical_not(flag) if negated else flag
        tf.identity(tf1.cond(flag, lambda: tf.sin(x), lambda: tf.cos(x)), name="out")

    graph_def = build_v1(make)
    rewritten = decided(graph_def)
    assert ops_of(rewritten, "PlaceholderWithDefault", "Identity") == ["Sin" if default != negated else "Cos"]
    check_same_values(graph_def, rewritten, {"x": X})
    assert sum("'flag' is taken to be" in text for text in messages) == 1
    # Whoever feeds it finds it still.
    assert node_of(rewritten, "flag").op == "PlaceholderWithDefault"
    run(rewritten, ["out"], {"x": X, "flag": not default})


@pytest.mark.parametrize(
    "make_flag",
    [
        lambda: tf1.placeholder(tf.bool, [], name="flag"),
        lambda: tf1.placeholder_with_default(np.float32(0.5), [], name="rate") > 0.1,
        lambda: tf1.placeholder_with_default([True], [1], name="flags")[0],
        lambda: tf1.placeholder_with_default(tf1.placeholder(tf.bool, [], name="other"), [], name="flag"),
        lambda: tf.reduce_all(tf.random.uniform([], seed=1) > -1),
    ],
    ids=["no default", "no bool", "no scalar", "default is fed", "random"],
)
def test_what_nobody_can_decide_stays(make_flag):
    def make():
        x = placeholder()
        tf.identity(tf1.cond(make_flag(), lambda: tf.sin(x), lambda: tf.cos(x)), name="out")

    graph_def = build_v1(make)
    rewritten = decided(graph_def)
    assert [name for name in ops_of(rewritten) if name in ("Switch", "Merge", "Sin", "Cos")] == sorted(
        name for name in ops_of(graph_def) if name in ("Switch", "Merge", "Sin", "Cos")
    )


def test_a_flag_that_something_still_waits_for_is_decided_once():
    def make():
        with tf.control_dependencies([tf1.placeholder(tf.float32, [], name="p") + tf.random.uniform([])]):
            default = tf.constant(True)
        flag = tf1.placeholder_with_default(default, [], name="flag")
        with tf.control_dependencies([flag]):
            tf.identity(placeholder(), name="out")

    graph_def = build(make)
    assert prepared(graph_def, decide_flags)[0] == graph_def
    decided(graph_def)


def test_nested_branches_are_decided_by_one_flag():
    def make():
        x = placeholder()
        flag = tf1.placeholder_with_default(False, [], name="flag")
        other = tf1.placeholder_with_default(True, [], name="other")

        def outer():
            return tf1.cond(other, lambda: tf.cos(x), lambda: tf.tan(x)) + 1.0

        y = tf1.cond(flag, lambda: tf1.cond(other, lambda: tf.sin(x), lambda: tf.exp(x)), outer)
        tf.identity(y, name="out")

    graph_def = build_v1(make)
    rewritten = decided(graph_def)
    assert ops_of(rewritten, "Identity", "PlaceholderWithDefault") == ["AddV2", "Cos"]
    check_same_values(graph_def, rewritten, {"x": X})


def test_a_decided_branch_inside_one_that_is_not():
    def make():
        x = placeholder()
        flag = tf1.placeholder(tf.bool, [], name="flag")
        y = tf1.cond(flag, lambda: tf1.cond(tf.constant(True), lambda: tf.sin(x), lambda: tf.exp(x)), lambda: x * 2.0)
        tf.identity(y, name="out")

    graph_def = build_v1(make)
    rewritten = decided(graph_def)
    assert "Exp" not in ops_of(rewritten) and ops_of(rewritten).count("Merge") == 1
    for flag in (True, False):
        check_same_values(graph_def, rewritten, {"x": X, "flag": flag})


def test_a_loop_in_a_dead_branch_vanishes_with_it():
    def make():
        x = placeholder()

        def training():
            return tf1.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, tf.sin(v)), [0, x])[1]

        tf.identity(tf1.cond(tf.constant(False), training, lambda: tf.cos(x)), name="out")

    graph_def = build_v1(make)
    rewritten, _ = prepared(graph_def, decide_branches)
    assert ops_of(rewritten, "Identity") == ["Cos"]
    check_same_values(graph_def, rewritten, {"x": X})


def test_a_loop_in_the_live_branch_stays():
    def make():
        x = placeholder()

        def inference():
            return tf1.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, tf.sin(v)), [0, x])[1]

        tf.identity(tf1.cond(tf.constant(False), lambda: tf.cos(x), inference), name="out")

    graph_def = build_v1(make)
    rewritten = decided(graph_def)
    assert "Sin" in ops_of(rewritten) and "Cos" not in ops_of(rewritten)
    check_same_values(graph_def, rewritten, {"x": X})


def test_a_branch_inside_a_loop_stays():
    def make():
        x = placeholder()

        def body(i, v):
            return i + 1, tf1.cond(tf.constant(True), lambda: tf.sin(v), lambda: tf.cos(v))

        tf.identity(tf1.while_loop(lambda i, _: i < 3, body, [0, x])[1], name="out")

    graph_def = build_v1(make)
    rewritten = decided(graph_def)
    assert {"Sin", "Cos"} <= set(ops_of(rewritten))
    check_same_values(graph_def, rewritten, {"x": X})


def test_the_other_branch_may_be_a_constant():
    def make():
        x = placeholder()
        flag = tf1.placeholder_with_default(True, [], name="flag")
        y = tf1.cond(flag, lambda: tf.constant(normal((3,), 2)), lambda: tf.sin(x[0]))
        tf.identity(x + y, name="out")

    graph_def = build_v1(make)
    rewritten = decided(graph_def)
    assert ops_of(rewritten, "Identity", "PlaceholderWithDefault") == ["AddV2"]
    check_same_values(graph_def, rewritten, {"x": X})


def merge_of_two(flag, waits=()):
    """A Merge of which the index is read: 0 for the false branch, 1 for the true one."""
    graph_def = tf1.GraphDef()
    graph_def.node.extend(
        [
            make_node("x", "Placeholder", (), dtype=tf.float32),
            make_const("flag", np.array(flag)),
            make_node("switch", "Switch", ["x", "flag"], T=tf.float32),
            make_node("sin", "Sin", ["switch:0"], T=tf.float32),
            make_node("cos", "Cos", ["switch:1"], T=tf.float32),
            make_node("merge", "Merge", ["sin", "cos", *waits], T=tf.float32, N=2),
            make_node("index", "Cast", ["merge:1"], SrcT=tf.int32, DstT=tf.float32),
            make_node("out", "AddV2", ["merge", "index"], T=tf.float32),
        ]
    )
    return graph_def


@pytest.mark.parametrize("flag", [True, False])
def test_which_input_a_merge_took_is_known(flag):
    graph_def = merge_of_two(flag)
    rewritten, origins = prepared(graph_def, decide_branches)
    check_same_values(graph_def, rewritten, {"x": X})
    assert ops_of(rewritten, "Identity") == ["AddV2", "Cast", "Cos" if flag else "Sin"]
    assert origins == {"merge/index": ("merge",)}


def test_a_merge_of_three_loses_the_input_that_is_dead():
    def graph(read):
        graph_def = tf1.GraphDef()
        graph_def.node.extend(
            [
                make_node("x", "Placeholder", (), dtype=tf.float32),
                make_node("flag", "Placeholder", (), dtype=tf.bool),
                make_const("never", np.array(False)),
                make_node("first", "Switch", ["x", "flag"], T=tf.float32),
                make_node("second", "Switch", ["first:1", "never"], T=tf.float32),
                make_node("sin", "Sin", ["second:1"], T=tf.float32),
                make_node("merge", "Merge", ["sin", "first:0", "second:0"], T=tf.float32, N=3),
                make_node("out", "Identity", [read], T=tf.int32 if read.endswith(":1") else tf.float32),
            ]
        )
        return graph_def

    rewritten, _ = prepared(graph("merge"), decide_branches)
    assert ops_of(rewritten) == ["Identity", "Merge", "Switch"]
    for flag in (True, False):
        check_same_values(graph("merge"), rewritten, {"x": X, "flag": flag})
    with pytest.raises(ModelError, match="'merge' is asked which of 2 branches ran"):
        prepared(graph("merge:1"), decide_branches)


def test_a_merge_goes_on_waiting_for_what_has_an_effect():
    graph_def = merge_of_two(True, waits=["^random"])
    shape = make_const("shape", np.array([1], np.int32))
    graph_def.node.extend([shape, make_node("random", "RandomUniform", ["shape"], dtype=tf.float32, T=tf.int32)])
    rewritten, _ = prepared(graph_def, decide_branches)
    assert list(node_of(rewritten, "merge").input) == ["cos", "^random"]


def test_an_output_that_is_the_switch_or_the_merge_itself_keeps_its_name():
    graph_def = merge_of_two(False)
    rewritten, _ = prepared(graph_def, decide_branches, ["switch", "merge", "out"])
    assert node_of(rewritten, "switch").op == node_of(rewritten, "merge").op == "Identity"
    check_same_values(graph_def, rewritten, {"x": X})


def test_an_output_that_is_never_computed_is_named():
    def make():
        x = placeholder()
        flag = tf1.placeholder_with_default(False, [], name="flag")
        y = tf1.cond(flag, lambda: tf.sin(x, name="training"), lambda: tf.cos(x))
        tf.identity(y, name="out")

    view = GraphView(build_v1(make))
    with pytest.raises(ModelError, match=r"'cond/training' belongs to a branch of net\.pb that is never taken"):
        prepare(view, ["cond/training", "out"], "net.pb")


def test_what_nothing_reads_in_a_dead_branch_goes():
    def make():
        x = placeholder()

        def training():
            tf.reduce_mean(x, name="summary")
            return tf.sin(x)

        tf.identity(tf1.cond(tf.constant(False), training, lambda: tf.cos(x)), name="out")

    graph_def = build_v1(make)
    rewritten, _ = prepared(graph_def, decide_branches)
    import_graph(rewritten, "test")
    assert "Mean" not in ops_of(rewritten)
