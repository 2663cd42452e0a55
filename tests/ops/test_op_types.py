"""The NumPy reference of every op type against TensorFlow itself, on integers, and what cannot be quantized and why."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, tf1
from hypothesis import given
from hypothesis import strategies as st

from amct_tensorflow.graph.view import GraphView, static_shapes
from amct_tensorflow.model.layers import find_layers, why_not_quantizable
from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.ops.matrix_form import Sample, spread


def integers(shape, seed):
    return np.random.default_rng(seed).integers(-9, 9, shape)


def check(op, data, weights):
    """Compares the reference with what TensorFlow computes; ``op`` makes the node from float64 tensors."""
    with tf.Graph().as_default() as graph, tf1.Session() as session:
        tensors = [None if values is None else tf.constant(values.astype(np.float64)) for values in (data, weights)]
        output = op(*tensors)
        expected = session.run(output)
        node = GraphView(graph.as_graph_def()).nodes[output.op.name]
    np.testing.assert_allclose(OP_TYPES[node.op].reference(node, data, weights), expected, rtol=1e-12)


@pytest.mark.parametrize("padding", ["SAME", "VALID", [[0, 0], [1, 2], [0, 3], [0, 0]]])
@pytest.mark.parametrize(("strides", "dilations"), [([1, 1], [1, 1]), ([2, 3], [1, 1]), ([1, 1], [2, 3])])
def test_conv2d(padding, strides, dilations):
    def op(x, w):
        return tf.nn.conv2d(x, w, strides, padding, dilations=dilations)

    check(op, integers((2, 11, 9, 3), 1), integers((3, 2, 3, 4), 2))


@pytest.mark.parametrize("padding", ["SAME", "VALID", [[0, 0], [1, 2], [0, 3], [0, 0]]])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("groups", [2, 6])
def test_grouped_conv2d(padding, stride, dilation, groups):
    def op(x, w):
        return tf.nn.conv2d(x, w, stride, padding, dilations=dilation)

    check(op, integers((2, 9, 8, 6), 12), integers((3, 2, 6 // groups, 12), 13))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_depthwise_conv2d(padding, stride, dilation):
    def op(x, w):
        return tf.raw_ops.DepthwiseConv2dNative(
            input=x, filter=w, strides=[1, stride, stride, 1], padding=padding, dilations=[1, dilation, dilation, 1]
        )

    if dilation > 1:  # TensorFlow has no kernel of its own for dilations on a CPU
        data, weights = integers((1, 7, 8, 3), 3), integers((3, 2, 3, 2), 4)
        spread = np.zeros((5, 3, 3, 2), np.int64)
        spread[::2, ::2] = weights
        node = build(lambda: op(tf1.placeholder(tf.float32, [1, 7, 8, 3]), normal((3, 2, 3, 2)))).node[-1]
        plain = build(
            lambda: tf.raw_ops.DepthwiseConv2dNative(
                input=tf1.placeholder(tf.float32, [1, 7, 8, 3]), filter=normal((5, 3, 3, 2)), strides=[1, 1, 1, 1],
                padding=padding,
            )
        ).node[-1]  # fmt: skip
        reference = OP_TYPES["DepthwiseConv2dNative"].reference
        np.testing.assert_array_equal(reference(node, data, weights), reference(plain, data, spread))
    else:
        check(op, integers((2, 7, 8, 3), 3), integers((3, 2, 3, 2), 4))


@pytest.mark.parametrize(("padding", "size"), [("SAME", 8), ("VALID", 9), ("VALID", 10)])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_transposed_conv2d(padding, size, kernel):
    length = size if padding == "SAME" else 3 * 2 + kernel

    def op(x, w):
        return tf.nn.conv2d_transpose(x, w, [2, length, length, 5], 2, padding)

    check(op, integers((2, 4, 4, 3), 5), integers((kernel, kernel, 5, 3), 6))


def test_matmul():
    check(tf.matmul, integers((5, 7), 7), integers((7, 3), 8))


@pytest.mark.parametrize("op", [tf.raw_ops.BatchMatMul, tf.raw_ops.BatchMatMulV2])
def test_batch_matmul_of_two_matrices(op):
    check(lambda x, w: op(x=x, y=w), integers((5, 7), 7), integers((7, 3), 8))


@pytest.mark.parametrize("batch", [(4,), (2, 3), (2, 1, 3)])
def test_batch_matmul_with_one_matrix_of_weights(batch):
    check(lambda x, w: tf.raw_ops.BatchMatMulV2(x=x, y=w), integers((*batch, 5, 7), 7), integers((7, 3), 8))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("strides", [[1, 1, 1], [2, 1, 3]])
def test_conv3d(padding, strides):
    def op(x, w):
        return tf.nn.conv3d(x, w, [1, *strides, 1], padding)

    # TensorFlow's own kernel shifts the window where a stride is longer than it, with SAME padding.
    check(op, integers((2, 5, 7, 6, 3), 14), integers((2, 1, 3, 3, 4), 15))


def test_conv3d_may_be_dilated_in_height_and_width():
    """TensorFlow has no kernel for it on a CPU to compare with; spread filters compute the same."""

    def node_of(dilation, shape):
        def make():
            x = tf1.placeholder(tf.float32, [1, 4, 7, 7, 2])
            tf.nn.conv3d(x, normal(shape), [1] * 5, "SAME", dilations=[1, 1, dilation, dilation, 1])

        return build(make).node[-1]

    data, weights = integers((1, 4, 7, 7, 2), 16), integers((3, 3, 3, 2, 3), 17)
    spread = np.zeros((3, 5, 5, 2, 3), np.int64)
    spread[:, ::2, ::2] = weights
    reference = OP_TYPES["Conv3D"].reference
    dilated = reference(node_of(2, weights.shape), data, weights)
    np.testing.assert_array_equal(dilated, reference(node_of(1, spread.shape), data, spread))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_avg_pool(padding):
    check(lambda x, _: tf.nn.avg_pool2d(x, [3, 2], [2, 1], padding), integers((2, 6, 7, 3), 9), None)


@pytest.mark.parametrize("name", ["Conv2D", "DepthwiseConv2dNative", "AvgPool"])
def test_nchw_is_nhwc_with_the_channels_in_front(name):
    """TensorFlow has no NCHW kernels on a CPU to compare with."""

    def node_of(data_format):
        def make():
            x = tf1.placeholder(tf.float32, [2, 6, 6, 6])
            strides = [1, 2, 2, 1] if data_format == "NHWC" else [1, 1, 2, 2]
            common = {"strides": strides, "padding": "SAME", "data_format": data_format}
            if name == "Conv2D":
                tf.raw_ops.Conv2D(input=x, filter=normal((3, 3, 6, 4)), **common)
            elif name == "AvgPool":
                window = [1, 3, 2, 1] if data_format == "NHWC" else [1, 1, 3, 2]
                tf.raw_ops.AvgPool(value=x, ksize=window, **common)
            else:
                tf.raw_ops.DepthwiseConv2dNative(input=x, filter=normal((3, 3, 6, 1)), **common)

        return build(make).node[-1]

    data = integers((2, 6, 6, 6), 10)
    weights = None if name == "AvgPool" else integers((3, 3, 6, 4 if name == "Conv2D" else 1), 11)
    op_type = OP_TYPES[name]
    expected = op_type.reference(node_of("NHWC"), np.moveaxis(data, 1, -1), weights)
    actual = op_type.reference(node_of("NCHW"), data, weights)
    np.testing.assert_array_equal(np.moveaxis(actual, 1, -1), expected)
    assert op_type.window(node_of("NCHW")) == op_type.window(node_of("NHWC"))


@pytest.mark.parametrize("op_type", OP_TYPES.values(), ids=OP_TYPES)
def test_a_descriptor_is_whole(op_type):
    assert OP_TYPES[op_type.name] is op_type
    assert (op_type.weight_input is None) is (op_type.weight_rank == 0) is (not op_type.channel_axes)
    if op_type.weight_rank:
        weights = np.zeros(range(2, 2 + op_type.weight_rank))
        channels = op_type.channels(weights)
        shaped = op_type.along_channels(weights, np.arange(channels))
        assert (weights + shaped).shape == weights.shape and shaped.size == channels


@pytest.mark.parametrize(
    ("filter_shape", "image", "data_format", "expected"),
    [
        ((6, 6, 4, 5), [None, 6, 6, 4], "NHWC", True),
        ((6, 6, 4, 5), [None, 7, 6, 4], "NHWC", False),
        ((6, 6, 4, 5), [None, None, None, 4], "NHWC", False),
        ((6, 6, 4, 5), [None, 4, 6, 6], "NCHW", True),
        ((6, 6, 2, 6), [None, 6, 6, 4], "NHWC", False),  # grouped: no filter sees all channels
    ],
)
def test_which_convolution_is_a_fully_connected_layer(filter_shape, image, data_format, expected):
    """Section 12.1 of the specification."""

    def make():
        x = tf1.placeholder(tf.float32, image)
        tf.nn.conv2d(x, normal(filter_shape), 1, "VALID", data_format=data_format, name="layer")

    with tf.Graph().as_default() as graph:
        make()
    (layer,) = find_layers(GraphView(graph.as_graph_def(), static_shapes(graph)))
    assert layer.channel_wise is not expected


X = [4, 6]
BATCH = [3, 4, 6]
IMAGE = [1, 8, 8, 4]
VOLUME = [1, 4, 8, 8, 3]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: tf.nn.relu(tf1.placeholder(tf.float32, X)), "its op type Relu is none of Conv2D, "),
        (lambda: tf.matmul(tf1.placeholder(tf.float64, X), np.ones((6, 2))), "it computes float64"),
        (
            lambda: tf.matmul(tf1.placeholder(tf.bfloat16, X), tf.cast(np.ones((6, 2)), tf.bfloat16)),
            "build the model under the policy float32",
        ),
        (lambda: tf.matmul(tf1.placeholder(tf.float32, X), tf1.placeholder(tf.float32, [6, 2])), None),
        (lambda: tf.matmul(normal((4, 6)), normal((6, 2))), "its input is a constant"),
        (lambda: tf.matmul(tf1.placeholder(tf.float32, X), normal((2, 6)), transpose_b=True), "it has transpose_b"),
        (lambda: tf.nn.conv2d_transpose(tf1.placeholder(tf.float32, IMAGE), normal((3, 3, 5, 4)), [1, 8, 8, 5], 1,
                                        dilations=2), "it is dilated"),
        (lambda: tf.raw_ops.DepthwiseConv2dNative(input=tf1.placeholder(tf.float32, IMAGE), filter=normal((3, 3, 4, 1)),
                                                  strides=[1, 2, 2, 1], padding="SAME", dilations=[1, 2, 2, 1]),
         "both strides and dilations"),
        (lambda: tf.matmul(tf1.placeholder(tf.float32, X), normal((6, 2))), None),
        (lambda: tf.matmul(normal((4, 6)), tf1.placeholder(tf.float32, [6, 2])), "its first operand is a constant"),
        (lambda: tf.matmul(tf1.placeholder(tf.float32, BATCH), tf1.placeholder(tf.float32, BATCH), transpose_b=True),
         "it has adj_y"),
        (lambda: tf.matmul(tf1.placeholder(tf.float32, BATCH), normal((3, 6, 2))), "3 axes, and only 2 can be"),
        (lambda: tf.matmul(tf1.placeholder(tf.float32, BATCH), normal((2, 6)), transpose_b=True), "it has adj_y"),
        (lambda: tf.matmul(tf1.placeholder(tf.float32, BATCH), normal((4, 2)), transpose_a=True), "it has adj_x"),
        (lambda: tf.raw_ops.BatchMatMulV3(x=tf1.placeholder(tf.float32, BATCH), y=normal((6, 2)), Tout=tf.float32),
         "types of its operands may differ"),
        (lambda: tf.raw_ops.Einsum(inputs=[tf1.placeholder(tf.float32, X), tf1.placeholder(tf.float32, X)],
                                   equation="ab,cb->ac"), "its equation is no product"),
        (lambda: tf.nn.conv2d(tf1.placeholder(tf.float32, IMAGE), tf1.placeholder(tf.float32, (1, 1, 4, 4)), 1, "SAME"),
         "are no constant, but computed"),
        (lambda: tf.raw_ops.Einsum(inputs=[tf1.placeholder(tf.float32, X), normal((4, 6, 2))],
                                   equation="ab,abc->ac"), "its equation is no product"),
        (lambda: tf.raw_ops.Einsum(inputs=[tf1.placeholder(tf.float32, X)], equation="ab->ba"), "is no product"),
        (lambda: tf.nn.conv3d(tf1.placeholder(tf.float32, VOLUME), normal((2, 2, 2, 3, 4)), [1] * 5, "SAME",
                              dilations=[1, 2, 1, 1, 1]), "dilated along its depth"),
        (lambda: tf.nn.conv3d(tf1.placeholder(tf.float32, VOLUME), normal((2, 2, 2, 3, 4)), [1] * 5, "SAME",
                              dilations=[1, 1, 2, 2, 1]), None),
        (lambda: tf.nn.conv3d(tf1.placeholder(tf.float32, [1, 3, 4, 4, 4]), normal((2, 2, 2, 3, 4)), [1] * 5, "SAME",
                              data_format="NCDHW"), "data format is NCDHW"),
    ],
)  # fmt: skip
def test_why_a_node_cannot_be_quantized(make, reason):
    view = GraphView(build(make))
    (node,) = [view.nodes[name] for name in view.nodes if not view.consumers(name)]
    found = why_not_quantizable(view, node)
    assert found is None if reason is None else found is not None and reason in found


def matrix_product(node, data, weights, most=10**6):
    """What an op computes, as the products of its matrix form; [rows, outputs of all groups]."""
    form = OP_TYPES[node.op].matrix_form
    rows = form.rows(node, data, weights.shape, Sample(most))
    matrices = form.matrices(weights, len(rows))
    np.testing.assert_array_equal(form.weights(matrices, weights.shape), weights)
    return (rows @ matrices).transpose(1, 0, 2).reshape(rows.shape[1], -1)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (2, 3)])
def test_conv2d_is_a_product_of_matrices(padding, stride, groups):
    data, weights = integers((2, 7, 8, 6), 12), integers((3, 2, 6 // groups, 9), 13)
    with tf.Graph().as_default() as graph:
        tf.nn.conv2d(tf1.placeholder(tf.float32, data.shape), weights.astype(np.float32), stride, padding)
    node = graph.as_graph_def().node[-1]
    parts = zip(np.split(data, groups, axis=3), np.split(weights, groups, axis=3), strict=True)
    whole = np.concatenate([OP_TYPES["Conv2D"].reference(node, *part) for part in parts], axis=3)
    np.testing.assert_array_equal(matrix_product(node, data, weights), whole.reshape(-1, 9))


def test_depthwise_conv2d_is_a_product_of_matrices_per_channel():
    data, weights = integers((2, 7, 8, 3), 14), integers((3, 2, 3, 2), 15)
    node = build(
        lambda: tf.nn.depthwise_conv2d(
            tf1.placeholder(tf.float32, data.shape), normal(weights.shape), [1, 2, 2, 1], "SAME"
        )
    ).node[-1]
    whole = OP_TYPES[node.op].reference(node, data, weights)
    np.testing.assert_array_equal(matrix_product(node, data, weights), whole.reshape(-1, 6))


def test_matmul_is_a_product_of_matrices():
    data, weights = integers((5, 7), 16), integers((7, 3), 17)
    node = build(lambda: tf.matmul(tf1.placeholder(tf.float32, data.shape), normal(weights.shape))).node[-1]
    np.testing.assert_array_equal(matrix_product(node, data, weights), data @ weights)


def test_transposed_conv2d_is_a_product_of_matrices_where_windows_do_not_overlap():
    data, weights = integers((2, 4, 5, 3), 18), integers((2, 2, 5, 3), 19)
    node = build(
        lambda: tf.nn.conv2d_transpose(
            tf1.placeholder(tf.float32, data.shape), normal(weights.shape), [2, 8, 10, 5], 2, "VALID"
        )
    ).node[-1]
    product = matrix_product(node, data, weights).reshape(2, 4, 5, 2, 2, 5).transpose(0, 1, 3, 2, 4, 5)
    np.testing.assert_array_equal(product.reshape(2, 8, 10, 5), OP_TYPES[node.op].reference(node, data, weights))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("height", "width", "kernel"), [(1, 1, 4), (2, 3, 3), (5, 4, 2), (6, 1, 5)])
def test_what_a_transposed_conv2d_comes_to_on_average_counts_its_margins(padding, stride, height, width, kernel):
    """Of data that is the same everywhere, each product comes on average to what it comes to at one position."""
    data, weights = np.broadcast_to(integers((3,), 18), (2, height, width, 3)), integers((kernel, kernel, 5, 3), 19)
    lengths = [n * stride if padding == "SAME" else (n - 1) * stride + kernel for n in (height, width)]
    node = build(
        lambda: tf.nn.conv2d_transpose(
            tf1.placeholder(tf.float32, data.shape), normal(weights.shape), [2, *lengths, 5], stride, padding
        )
    ).node[-1]
    products = matrix_product(node, data, weights).mean(axis=0, keepdims=True)
    found = OP_TYPES[node.op].matrix_form.per_channel(node, products, weights.shape, data.shape)
    np.testing.assert_allclose(found, OP_TYPES[node.op].reference(node, data, weights).mean(axis=(0, 1, 2)))


def test_few_rows_are_spread_over_all_images_rows_and_columns():
    data = np.stack(np.meshgrid(*map(np.arange, (4, 6, 10)), indexing="ij"), axis=-1)
    node = build(lambda: tf.nn.conv2d(tf1.placeholder(tf.float32, data.shape), normal((1, 1, 3, 2)), 1, "SAME")).node[
        -1
    ]
    (rows,) = OP_TYPES["Conv2D"].matrix_form.rows(node, data, (1, 1, 3, 2), Sample(40))
    assert 20 <= len(rows) <= 40
    assert [len(np.unique(column)) for column in rows.T] == [4, 6, 10]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_a_sample_is_never_larger_than_asked_for_and_never_empty(shape, most, start):
    found = np.stack(spread(tuple(shape), Sample(most, start)))
    assert min(1, np.prod(shape)) <= found.shape[1] <= most
    assert np.all(found < np.array(shape)[:, np.newaxis])


@pytest.mark.parametrize("op_type", OP_TYPES.values(), ids=OP_TYPES)
def test_what_has_weights_has_a_matrix_form(op_type):
    assert (op_type.matrix_form is None) is (op_type.weight_input is None)
