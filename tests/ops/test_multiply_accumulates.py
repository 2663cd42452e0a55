"""The multiply-accumulates of every op that carries some, against counts by hand."""

import pytest
import tensorflow as tf
from graphs import build, normal, tf1

from amct_tensorflow.graph.view import GraphView, static_shapes
from amct_tensorflow.model.fusion import fuse
from amct_tensorflow.model.layers import why_not_quantizable
from amct_tensorflow.model.outline import one_image_shapes
from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.ops.einsum import Equation, parse_equation
from amct_tensorflow.ops.multiply_accumulates import CARRIERS, multiply_accumulates


def placeholder(*shape):
    return tf1.placeholder(tf.float32, shape)


def conv(image, filters, stride=1):
    return tf.nn.conv2d(placeholder(*image), normal(filters), stride, "SAME")


def depthwise():
    return tf.nn.depthwise_conv2d(placeholder(None, 8, 8, 3), normal((3, 3, 3, 2)), [1, 2, 2, 1], "SAME")


def transposed():
    return tf.nn.conv2d_transpose(placeholder(2, 4, 4, 5), normal((3, 3, 6, 5)), [2, 8, 8, 6], 2, "SAME")


def volume():
    return tf.nn.conv3d(placeholder(None, 4, 6, 8, 3), normal((1, 2, 3, 3, 5)), [1, 2, 2, 2, 1], "SAME")


def transposed_volume():
    filters = normal((2, 2, 2, 6, 5))
    return tf.nn.conv3d_transpose(placeholder(1, 4, 4, 4, 5), filters, [1, 8, 8, 8, 6], [1, 2, 2, 2, 1])


def transposed_depthwise():
    return tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=[1, 8, 8, 3], filter=normal((3, 3, 3, 2)), out_backprop=placeholder(1, 4, 4, 6),
        strides=[1, 2, 2, 1], padding="SAME",
    )  # fmt: skip


def einsum(equation, *shapes):
    return tf.raw_ops.Einsum(inputs=[placeholder(*shape) for shape in shapes], equation=equation)


def attention(**flags):
    return tf.matmul(placeholder(None, 2, 5, 7), placeholder(None, 2, 5, 7), **flags)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: conv((None, 8, 8, 3), (3, 3, 3, 5), 2), 4 * 4 * 5 * 27),
        (lambda: conv((7, 8, 8, 3), (3, 3, 3, 5), 2), 7 * 4 * 4 * 5 * 27),
        (lambda: conv((None, 8, 8, 6), (3, 3, 2, 6)), 8 * 8 * 6 * 18),
        (lambda: conv((None, None, 8, 3), (3, 3, 3, 5)), None),
        (depthwise, 4 * 4 * 6 * 9),
        (transposed, 2 * 4 * 4 * 9 * 5 * 6),  # every position of the input, as often as there are weights
        (volume, 2 * 3 * 4 * 5 * 18),
        (transposed_volume, 4 * 4 * 4 * 8 * 5 * 6),
        (transposed_depthwise, 4 * 4 * 9 * 6),
        (lambda: tf.matmul(placeholder(None, 7), normal((7, 3))), 7 * 3),
        (lambda: tf.matmul(placeholder(4, 7), normal((3, 7)), transpose_b=True), 4 * 7 * 3),
        (lambda: tf.matmul(placeholder(None, 5, 7), normal((7, 3))), 5 * 7 * 3),
        (lambda: attention(transpose_b=True), 2 * 5 * 5 * 7),
        (lambda: attention(transpose_a=True), 2 * 7 * 7 * 5),
        (lambda: tf.raw_ops.BatchMatMulV3(x=placeholder(2, 5, 7), y=normal((7, 3)), Tout=tf.float32), 2 * 5 * 7 * 3),
        (lambda: einsum("abc,cde->abde", (None, 5, 7), (7, 2, 3)), 5 * 7 * 2 * 3),
        (lambda: einsum("aecd,abcd->acbe", (None, 6, 2, 7), (None, 5, 2, 7)), 6 * 2 * 7 * 5),
        (lambda: einsum("...ab,bc->...ac", (None, 4, 5, 7), (7, 3)), 4 * 5 * 7 * 3),
        (lambda: einsum("ab,bc->ac", (None, None), (None, 3)), None),
        (lambda: einsum("abc->ab", (None, 4, 5)), 0),
        (lambda: tf.nn.relu(placeholder(2, 3)), 0),
        (lambda: tf.nn.avg_pool2d(placeholder(1, 4, 4, 3), 2, 2, "SAME"), 0),
    ],
)
def test_counts(make, expected):
    with tf.Graph().as_default() as graph:
        name = make().op.name
    view = GraphView(graph.as_graph_def(), static_shapes(graph))
    assert multiply_accumulates(view, view.nodes[name]) == expected


def rows_of_a_dense_layer():
    x = placeholder(None, 5, 7)
    flat = tf.reshape(x, [-1, 7])
    y = tf.matmul(flat, normal((7, 3)), name="layer")
    tf.reshape(y, [tf.shape(x)[0], 5, 3])


def patches_of_a_dilated_convolution():
    x = tf.space_to_batch(placeholder(None, 8, 8, 3), [2, 2], [[2, 2], [2, 2]])
    tf.nn.conv2d(x, normal((3, 3, 3, 5)), 1, "VALID", name="layer")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (rows_of_a_dense_layer, 5 * 7 * 3),
        (patches_of_a_dilated_convolution, 4 * 4 * 4 * 5 * 27),
    ],
)
def test_counts_for_one_image(make, expected):
    with tf.Graph().as_default() as graph:
        make()
    view = GraphView(graph.as_graph_def())
    view = view.with_shapes(one_image_shapes(view, view.nodes))
    assert multiply_accumulates(view, view.nodes["layer"]) == expected


def test_a_model_that_does_not_take_one_image():
    def make():
        pairs = tf.reshape(placeholder(None, 7), [2, 3, 7])
        tf1.placeholder(tf.float32, name="of_any_rank")
        tf.matmul(pairs, normal((7, 3)), name="layer")

    with tf.Graph().as_default() as graph:
        make()
    view = GraphView(graph.as_graph_def(), static_shapes(graph))
    assert one_image_shapes(view, view.nodes) is None
    assert multiply_accumulates(view, view.nodes["layer"]) == 2 * 3 * 7 * 3


def test_nothing_is_known_without_shapes():
    view = GraphView(build(lambda: attention(transpose_b=True)))
    (node,) = [node for node in view.graph_def.node if node.op == "BatchMatMulV2"]
    assert multiply_accumulates(view, node) is None


def padded():
    return tf.raw_ops.FusedPadConv2D(
        input=placeholder(1, 6, 6, 3), paddings=[[0, 0], [1, 1], [1, 1], [0, 0]], filter=normal((3, 3, 3, 5)),
        mode="REFLECT", strides=[1, 1, 1, 1], padding="VALID",
    )  # fmt: skip


def sparse():
    return tf.raw_ops.SparseMatMul(a=placeholder(4, 7), b=normal((7, 3)))


def transposed_2():
    return tf.raw_ops.Conv2DBackpropInputV2(
        input=placeholder(1, 8, 8, 6), filter=normal((3, 3, 6, 5)), out_backprop=placeholder(1, 4, 4, 5),
        strides=[1, 2, 2, 1], padding="SAME",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "expected", "reason"),
    [
        (padded, 6 * 6 * 5 * 27, "without optimizing it"),
        (sparse, 4 * 7 * 3, "sparse"),
        (transposed_2, 4 * 4 * 9 * 5 * 6, "newer form"),
    ],
)
def test_what_is_never_quantized(make, expected, reason):
    with tf.Graph().as_default() as graph:
        name = make().op.name
    view = GraphView(graph.as_graph_def(), static_shapes(graph))
    assert multiply_accumulates(view, view.nodes[name]) == expected
    assert reason in why_not_quantizable(view, view.nodes[name])


def test_a_whole_program_is_told_to_be_one():
    graph_def = tf1.GraphDef()
    graph_def.node.add(name="program", op="XlaCallModule")
    view = GraphView(graph_def)
    assert "exported for XLA" in why_not_quantizable(view, view.nodes["program"])
    assert multiply_accumulates(view, view.nodes["program"]) is None


def test_every_layer_with_weights_carries_some():
    assert {name for name, op_type in OP_TYPES.items() if op_type.weight_input is not None} <= CARRIERS
    assert "AvgPool" not in CARRIERS


@pytest.mark.parametrize(("make", "expected"), [(transposed, 4), (depthwise, 1), (volume, 1)])
def test_how_many_positions_share_a_weight(make, expected):
    (layer,) = fuse(GraphView(build(make))).layers.values()
    assert layer.positions_per_weight == expected


@pytest.mark.parametrize(
    ("text", "ranks", "expected"),
    [
        ("abc, cd -> abd", (3, 2), Equation((("a", "b", "c"), ("c", "d")), ("a", "b", "d"))),
        ("...b,bc->...c", (3, 2), Equation((("...1", "...0", "b"), ("b", "c")), ("...1", "...0", "c"))),
        ("...b,...c->...bc", (2, 3), Equation((("...0", "b"), ("...1", "...0", "c")), ("...1", "...0", "b", "c"))),
        ("ab,bc", (2, 2), None),
        ("ab,bc->ac", (3, 2), None),
        ("ab,bc->ac", (2,), None),
        ("abc,bc->ac", (2, 2), None),
    ],
)
def test_equations(text, ranks, expected):
    assert parse_equation(text, ranks) == expected
