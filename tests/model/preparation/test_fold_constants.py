"""What follows from constants alone is computed once, as far as that keeps the file small."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, build_v1, calibrate_and_save, check_same_values, node_of, normal, ops_of, prepared, run, tf1

from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.model.preparation.fold_constants import fold_constants

X = normal((2, 4), 1)


def placeholder():
    return tf1.placeholder(tf.float32, [None, 4], name="x")


def check_stays(make, build=build):
    graph_def = build(make)
    assert prepared(graph_def, fold_constants)[0] == graph_def


def value_of(graph_def, name):
    return tf.make_ndarray(node_of(graph_def, name).attr["value"].tensor)


def test_a_batch_norm_in_small_ops_is_left_with_one_constant_per_op():
    def make():
        statistics = [tf.constant(values) for values in (normal((4,), 2), np.float32([1, 2, 3, 4]))]
        y = tf.nn.batch_normalization(placeholder(), *statistics, normal((4,), 3), normal((4,), 4), 1e-3, name="bn")
        tf.identity(y, name="out")

    graph_def = build(make)
    rewritten, origins = prepared(graph_def, fold_constants)
    assert ops_of(rewritten) == ["AddV2", "Identity", "Mul"] and origins == {}
    assert {node.name for node in rewritten.node} <= {node.name for node in graph_def.node}
    check_same_values(graph_def, rewritten, {"x": X})


def test_weights_that_are_stored_in_half_precision():
    def make():
        half = tf.identity(tf.constant(normal((4, 3), 2).astype(np.float16)))
        tf.matmul(placeholder(), tf.cast(half, tf.float32, name="weights"), name="out")

    graph_def = build(make)
    rewritten, _ = prepared(graph_def, fold_constants)
    assert ops_of(rewritten) == ["MatMul"]
    np.testing.assert_array_equal(value_of(rewritten, "weights"), normal((4, 3), 2).astype(np.float16))
    check_same_values(graph_def, rewritten, {"x": X})


def test_an_op_with_several_outputs():
    def make():
        left, right = tf.split(tf.constant(normal((4, 6), 2)), 2, 1, name="split")
        tf.add(tf.matmul(placeholder(), left), tf.matmul(tf.identity(placeholder()), right), name="out")

    graph_def = build(make)
    rewritten, origins = prepared(graph_def, fold_constants)
    assert "Split" not in ops_of(rewritten) and origins == {"split/output_1": ("split",)}
    check_same_values(graph_def, rewritten, {"x": X, "x_1": X})


def test_weights_that_are_stored_in_parts():
    """The whole takes no more than its parts."""

    def make():
        parts = [tf.constant(normal((200, 100), seed)) for seed in (2, 3)]
        x = tf1.placeholder(tf.float32, [None, 200], name="x")
        tf.matmul(x, tf.concat(parts, 1, name="weights"), name="out")

    rewritten, _ = prepared(build(make), fold_constants)
    assert ops_of(rewritten) == ["MatMul"]


@pytest.mark.parametrize(
    "make_large",
    [
        lambda: tf.fill([200, 200], 0.5),
        lambda: tf.reshape(tf.fill([200, 200], 0.5), [100, 400]),
        lambda: tf.tile(tf.constant(normal((2, 100), 2)), [100, 2]),
        lambda: tf.sin(tf.zeros([200, 200])),  # a constant whose elements are all alike is stored as one
        lambda: tf.constant(normal((200, 1), 2)) * tf.constant(normal((1, 200), 3)),
        lambda: tf.one_hot(tf.range(200), 200),
    ],
    ids=["filled", "reshaped", "tiled", "all alike", "broadcast", "one hot"],
)
def test_a_file_does_not_grow(make_large):
    def make():
        tf.add(tf1.placeholder(tf.float32, [], name="x"), make_large(), name="out")

    graph_def = build(make)
    rewritten, _ = prepared(graph_def, fold_constants)
    assert rewritten.ByteSize() < graph_def.ByteSize() + 1000
    check_same_values(graph_def, rewritten, {"x": 1.0})


@pytest.mark.parametrize("make_small", [lambda: tf.fill([1, 4], 0.5), lambda: tf.cast(tf.range(4), tf.float32)])
def test_small_constants_are_computed(make_small):
    def make():
        tf.add(placeholder(), make_small(), name="out")

    assert ops_of(prepared(build(make), fold_constants)[0]) == ["AddV2"]


def mask():
    positions = tf.range(100)
    return tf.cast(positions[:, None] >= positions, tf.float32)


@pytest.mark.parametrize(
    "make_grown",
    [
        mask,
        lambda: tf.tile(tf.constant(normal((1, 100), 2)), [100, 1]),
        lambda: tf.constant(normal((100, 1), 2)) * tf.constant(normal((1, 100), 3)),
        lambda: tf.sin(tf.reshape(tf.cast(tf.range(10000), tf.float32), [100, 100])),
    ],
    ids=["mask", "tiled", "broadcast", "positions"],
)
def test_what_takes_more_than_its_nodes_stays_computed_unless_a_layer_reads_it(make_grown):
    def added():
        tf.add(tf1.placeholder(tf.float32, [None, 100], name="x"), make_grown(), name="out")

    def multiplied():
        tf.matmul(tf1.placeholder(tf.float32, [None, 100], name="x"), make_grown(), name="out")

    check_stays(added)
    graph_def = build(multiplied)
    rewritten, _ = prepared(graph_def, fold_constants)
    assert ops_of(rewritten) == ["MatMul"]
    check_same_values(graph_def, rewritten, {"x": normal((2, 100), 4)})


def test_one_of_two_outputs_that_takes_more_leaves_both_computed():
    def make():
        grid = tf.meshgrid(tf.cast(tf.range(100), tf.float32), tf.constant(normal((100,), 2)))
        values, indices = tf.nn.top_k(grid[1] + grid[0], 100, name="top")
        tf.add(placeholder()[0, 0], values[0, 0] + tf.cast(indices, tf.float32), name="out")

    graph_def = build(make)
    rewritten, _ = prepared(graph_def, fold_constants)
    assert rewritten.ByteSize() <= graph_def.ByteSize()
    check_same_values(graph_def, rewritten, {"x": X})


def test_a_small_network_with_a_mask_takes_no_more_than_it_did(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make():
        x = tf1.placeholder(tf.float32, [None, 100], name="x")
        tf.add(tf.matmul(x, normal((100, 100), 1), name="layer")[:, None], mask(), name="out")

    graph_def = build(make)
    quantized = calibrate_and_save(graph_def, normal((16, 100), 2))
    assert quantized.ByteSize() < 0.5 * graph_def.ByteSize()  # the mask would take as much as the float weights


def test_what_cannot_be_a_constant_is_left_and_what_follows_from_it_is_none_the_less():
    def make():
        tensors = tf.raw_ops.TensorListFromTensor(tensor=normal((3, 4), 2), element_shape=[4])
        item = tf.raw_ops.TensorListGetItem(
            input_handle=tensors, index=1, element_shape=[4], element_dtype=tf.float32, name="item"
        )
        tf.add(placeholder(), item, name="sum")
        index = tf1.placeholder(tf.int32, [], name="index")
        other = tf.raw_ops.TensorListGetItem(
            input_handle=tensors, index=index, element_shape=[4], element_dtype=tf.float32
        )
        tf.add(placeholder(), other, name="out")
        tf.strings.join([tf.strings.as_string(index), tf.strings.as_string(tf.constant(3))], name="text")

    graph_def = build(make)
    rewritten, _ = prepared(graph_def, fold_constants)
    assert node_of(rewritten, "item").op == "Const"
    assert {"TensorListFromTensor", "AsString"} <= set(ops_of(rewritten))
    feeds = {"x": X, "x_1": X, "index": 2}
    for name in ("sum", "out", "text"):
        np.testing.assert_array_equal(run(graph_def, [name], feeds), run(rewritten, [name], feeds))


def test_what_is_random_or_has_a_state_stays():
    def make():
        x = placeholder()
        tf.add(x, tf.random.uniform([4], seed=1), name="out")
        table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1], [2.0]), 0.0)
        tf.add(x, table.lookup(tf.constant(1)), name="looked_up")

    rewritten, _ = prepared(build(make), fold_constants, ["out", "looked_up"])
    assert {"RandomUniform", "LookupTableFindV2"} <= set(ops_of(rewritten))


def test_a_default_that_may_be_fed_over_is_no_constant():
    check_stays(lambda: tf.add(placeholder(), tf.sin(tf1.placeholder_with_default(2.0, [])), name="out"))


def test_constants_of_a_branch_or_loop_stay_in_it():
    def make():
        x = placeholder()
        flag = tf1.placeholder(tf.bool, [], name="flag")
        y = tf1.cond(flag, lambda: tf.sin(tf.constant(normal((4,), 2))), lambda: x[0])
        _, z = tf1.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, v + tf.sin(tf.constant(1.0))), [0, x])
        tf.add(y, z, name="out")

    graph_def = build_v1(make)
    rewritten, _ = prepared(graph_def, fold_constants)
    assert ops_of(rewritten).count("Sin") == 2
    for flag in (True, False):
        check_same_values(graph_def, rewritten, {"x": X, "flag": flag})


def test_a_constant_that_waits_for_something_is_none():
    def make():
        x = placeholder()
        with tf.control_dependencies([tf.random.uniform([])]):
            constant = tf.constant(normal((4,), 2))
        tf.add(x, tf.sin(constant), name="out")

    check_stays(make)


def test_what_tensorflow_cannot_compute_stays_and_the_rest_is_computed():
    """It may be left from training, or be one that is never run."""

    def make():
        x = placeholder()
        tf.add(x, tf.sin(tf.constant(1.0)), name="out")
        index = tf.constant(7) // tf.constant(0)
        tf.add(tf.cast(index, tf.float32), x, name="broken")

    rewritten, _ = prepared(build(make), fold_constants)
    assert ops_of(rewritten) == ["AddV2", "AddV2", "Cast", "FloorDiv"]


def test_requested_nodes_keep_their_names():
    def make():
        gain = tf.sin(tf.constant(normal((4,), 2)), name="gain")
        tf.multiply(placeholder(), tf.exp(gain), name="out")

    graph_def = build(make)
    rewritten, _ = prepared(graph_def, fold_constants, ["gain", "out"])
    assert {"gain", "out"} <= {node.name for node in rewritten.node} and "Exp" not in ops_of(rewritten)
    check_same_values(graph_def, rewritten, {"x": X})


def test_nothing_constant_changes_nothing():
    check_stays(lambda: tf.sin(placeholder(), name="out"))


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float64, tf.int8, tf.uint16, tf.bool, tf.complex64])
def test_types(dtype):
    graph_def = tf1.GraphDef()
    graph_def.node.extend(
        [
            make_const("c", np.array([1.0, 0.0], np.float32)),
            make_node("cast", "Cast", ["c"], SrcT=tf.float32, DstT=dtype),
            make_node("x", "Placeholder", (), dtype=dtype),
            make_node("out", "Select" if dtype == tf.bool else "Snapshot", ["cast"] * (3 if dtype == tf.bool else 1),
                      T=dtype),
        ]
    )  # fmt: skip
    graph_def.node.append(make_node("read", "IdentityN", ["cast", "x"]))
    graph_def.node[-1].attr["T"].list.type.extend([dtype.as_datatype_enum] * 2)
    rewritten, _ = prepared(graph_def, fold_constants, ["out", "read"])
    assert node_of(rewritten, "cast").op == ("Cast" if dtype == tf.complex64 else "Const")
    np.testing.assert_array_equal(run(rewritten, ["cast"], {}), run(graph_def, ["cast"], {}))
