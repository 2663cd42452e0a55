import numpy as np
import pytest
import tensorflow as tf
from graphs import batch_norm, build, normal, run, small_net, tf1

from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.graph.view import GraphView, const_value
from amct_tensorflow.graph.weights import take_weights_out
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.fusion import fuse
from amct_tensorflow.model.model_file import import_graph

X = normal((2, 6, 6, 4), 10)


def placeholder():
    return tf1.placeholder(tf.float32, [None, 6, 6, 4], name="x")


def conv(x, out=6, name="conv"):
    return tf.nn.conv2d(x, normal((3, 3, 4, out), 11), 1, "SAME", name=name)


def check_same_value(graph_def, fused, output="out"):
    (expected,) = run(graph_def, [output], {"x": X})
    (actual,) = run(fused.graph_def, [output], {"x": X})
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def types_of(fused, output="out"):
    needed = tf1.graph_util.extract_sub_graph(fused.graph_def, [output])
    return [node.op for node in needed.node if node.op not in ("Const", "Placeholder", "Identity")]


@pytest.mark.parametrize("op", ["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_batch_norm_folds_into_conv(op, with_bias):
    def make():
        y = conv(placeholder())
        if with_bias:
            y = tf.nn.bias_add(y, normal((6,), 12))
        tf.identity(batch_norm(y, 6, "bn", 13, op), name="out")

    graph_def = build(make)
    fused = fuse(GraphView(graph_def))
    assert types_of(fused) == ["Conv2D", "BiasAdd"]
    assert fused.tail_of("conv") == "bn"
    check_same_value(graph_def, fused)


@pytest.mark.parametrize("multiplier", [1, 3])
def test_batch_norm_folds_into_depthwise(multiplier):
    def make():
        y = tf.nn.depthwise_conv2d(placeholder(), normal((3, 3, 4, multiplier), 14), [1, 2, 2, 1], "SAME", name="dw")
        tf.identity(batch_norm(y, 4 * multiplier, "bn", 15), name="out")

    graph_def = build(make)
    fused = fuse(GraphView(graph_def))
    assert types_of(fused) == ["DepthwiseConv2dNative", "BiasAdd"]
    check_same_value(graph_def, fused)


def test_fold_is_computed_in_float64():
    graph_def = build(lambda: tf.identity(batch_norm(conv(placeholder()), 6, "bn", 13), name="out"))
    layer = fuse(GraphView(graph_def)).layers["conv"]
    generator = np.random.default_rng(13)
    gamma, variance = generator.uniform(0.5, 2.0, (2, 6)).astype(np.float32).astype(np.float64)
    beta, mean = generator.normal(size=(2, 6)).astype(np.float32).astype(np.float64)
    scale = gamma / np.sqrt(variance + np.float64(np.float32(0.001)))
    np.testing.assert_array_equal(layer.weights, (normal((3, 3, 4, 6), 11) * scale).astype(np.float32))
    np.testing.assert_array_equal(layer.bias, (beta - mean * scale).astype(np.float32))


@pytest.mark.parametrize("shape", [(), (6,), (1, 1, 1, 6), (1,)])
@pytest.mark.parametrize("op", ["Add", "AddV2"])
@pytest.mark.parametrize("constant_first", [False, True])
def test_add_of_a_constant_becomes_bias_add(shape, op, constant_first):
    def make():
        y, constant = conv(placeholder()), tf.constant(normal(shape, 16))
        sides = {"x": constant, "y": y} if constant_first else {"x": y, "y": constant}
        tf.identity(getattr(tf.raw_ops, op)(**sides, name="add"), name="out")

    graph_def = build(make)
    fused = fuse(GraphView(graph_def))
    assert types_of(fused) == ["Conv2D", "BiasAdd"]
    assert fused.layers["conv"].bias.shape == (6,)
    check_same_value(graph_def, fused)


def test_add_that_varies_over_positions_is_no_bias():
    graph_def = build(lambda: tf.add(conv(placeholder()), normal((6, 1, 6), 17), name="out"))
    fused = fuse(GraphView(graph_def))
    assert fused.layers["conv"].bias is None
    check_same_value(graph_def, fused)


def test_matmul_with_add():
    def make():
        x = tf.reshape(placeholder(), [-1, 144])
        tf.add(tf.matmul(x, normal((144, 7), 18), name="fc"), normal((7,), 19), name="out")

    graph_def = build(make)
    fused = fuse(GraphView(graph_def))
    assert fused.layers["fc"].bias.shape == (7,)
    check_same_value(graph_def, fused)


@pytest.mark.parametrize("with_bias", [False, True])
def test_scalar_mul_folds(with_bias):
    def make():
        y = conv(placeholder())
        if with_bias:
            y = tf.nn.bias_add(y, normal((6,), 12))
        tf.multiply(y, tf.constant(0.37), name="out")

    graph_def = build(make)
    fused = fuse(GraphView(graph_def))
    assert types_of(fused) == ["Conv2D", "BiasAdd"]
    check_same_value(graph_def, fused)


def test_mul_by_a_vector_folds():
    graph_def = build(lambda: tf.multiply(conv(placeholder()), normal((6,), 3), name="out"))
    fused = fuse(GraphView(graph_def))
    assert types_of(fused) == ["Conv2D", "BiasAdd"]
    check_same_value(graph_def, fused)


@pytest.mark.parametrize("rank", [2, 3])
def test_a_layer_scale_folds_into_a_dense_layer(rank):
    """As ConvNeXt and transformers have it behind the bias; alone it folds, too."""
    scale, bias = normal((7,), 3), normal((7,), 19)

    def make():
        x = tf.reshape(placeholder(), [-1, 144] if rank == 2 else [-1, 36, 4])
        weights = normal((144 if rank == 2 else 4, 7), 18)
        tf.identity((tf.matmul(x, weights, name="fc") + bias) * scale, name="out")

    graph_def = build(make)
    fused = fuse(GraphView(graph_def))
    layer = fused.layers["fc"]
    assert types_of(fused)[-2:] == [layer.op_type, "BiasAdd"]
    np.testing.assert_allclose(layer.weights, normal(layer.weights.shape, 18) * scale, rtol=1e-6)
    np.testing.assert_allclose(layer.bias, bias * scale, rtol=1e-6)
    check_same_value(graph_def, fused)


def test_a_chain_folds_as_a_whole():
    def make():
        y = tf.multiply(conv(placeholder()), tf.constant(2.0))
        y = batch_norm(tf.add(y, normal((6,), 20)), 6, "bn", 21)
        tf.nn.bias_add(y, normal((6,), 22), name="out")

    graph_def = build(make)
    fused = fuse(GraphView(graph_def))
    assert len(fused.layers["conv"].absorbed) == 4
    check_same_value(graph_def, fused)


def test_outputs_inside_a_chain_keep_their_value():
    def make():
        tf.identity(batch_norm(conv(placeholder()), 6, "bn", 13), name="out")

    graph_def = build(make)
    fused = fuse(GraphView(graph_def), keep=["conv"])
    assert fused.layers["conv"].absorbed == ()
    for output in ("conv", "bn", "out"):
        check_same_value(graph_def, fused, output)
    # The last node of a chain may be requested: its name goes to the BiasAdd.
    check_same_value(graph_def, fuse(GraphView(graph_def), keep=["bn"]), "bn")


def test_two_readers_prevent_the_fold():
    def make():
        y = conv(placeholder())
        tf.add(batch_norm(y, 6, "bn", 13), tf.nn.relu(y), name="out")

    graph_def = build(make)
    fused = fuse(GraphView(graph_def))
    assert fused.layers["conv"].absorbed == ()
    check_same_value(graph_def, fused)


def test_control_edges_from_inside_a_chain_prevent_the_fold_beyond():
    def make():
        biased = tf.nn.bias_add(conv(placeholder()), normal((6,), 12), name="biased")
        y = batch_norm(biased, 6, "bn", 13)
        with tf.control_dependencies([biased]):
            tf.identity(y, name="out")

    graph_def = build(make)
    fused = fuse(GraphView(graph_def))
    assert fused.layers["conv"].absorbed == ("biased",)
    check_same_value(graph_def, fused)


def test_training_batch_norm_stays():
    def make():
        y, *_ = tf.raw_ops.FusedBatchNormV3(
            x=conv(placeholder()), scale=np.ones(6, np.float32), offset=np.zeros(6, np.float32),
            mean=np.zeros(0, np.float32), variance=np.zeros(0, np.float32), is_training=True, name="bn",
        )  # fmt: skip
        tf.identity(y, name="out")

    assert fuse(GraphView(build(make))).layers["conv"].absorbed == ()


def test_user_can_keep_batch_norm():
    graph_def = build(lambda: tf.identity(batch_norm(conv(placeholder()), 6, "bn", 13), name="out"))
    fused = fuse(GraphView(graph_def), unfused=["conv"])
    assert fused.layers["conv"].absorbed == ()
    assert fused.layers["conv"].batch_norm_kept
    check_same_value(graph_def, fused)


def test_a_fold_that_overflows_is_left_out():
    def make():
        y, *_ = tf.raw_ops.FusedBatchNormV3(
            x=conv(placeholder()), scale=np.full(6, 3e38, np.float32), offset=np.zeros(6, np.float32),
            mean=np.zeros(6, np.float32), variance=np.full(6, 1e-12, np.float32), epsilon=1e-12, is_training=False,
            name="bn",
        )  # fmt: skip
        tf.identity(y, name="out")

    assert fuse(GraphView(build(make))).layers["conv"].absorbed == ()


def test_the_graph_given_is_not_changed():
    graph_def = build(small_net)
    before = graph_def.SerializeToString(deterministic=True)
    fuse(GraphView(graph_def))
    assert graph_def.SerializeToString(deterministic=True) == before


def test_small_net_keeps_its_value():
    graph_def = build(small_net)
    images = normal((3, 12, 12, 3), 30)
    fused = fuse(GraphView(graph_def))
    (expected,) = run(graph_def, ["probabilities"], {"input": images})
    (actual,) = run(fused.graph_def, ["probabilities"], {"input": images})
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_what_reads_another_output_of_a_batch_norm_is_not_folded():
    """The product is that of the mean of the BatchNorm, [6], and not that of the layer."""

    def make():
        scale, offset, mean, variance = normal((6,), 1), normal((6,), 2), normal((6,), 3), normal((6,), 4) ** 2 + 1
        norm = tf.raw_ops.FusedBatchNormV3(
            x=conv(placeholder()), scale=scale, offset=offset, mean=mean, variance=variance, is_training=False
        )
        tf.multiply(norm.batch_mean, normal((6,), 5), name="out")

    graph_def = build(make)
    fused = fuse(GraphView(graph_def))
    assert "Mul" in types_of(fused)
    check_same_value(graph_def, fused)


def test_weights_are_those_of_the_constants_that_hold_them():
    """Whoever runs the graph feeds them, instead of copies."""
    model = FloatModel.of_graph(import_graph(build(small_net), "test"), ["probabilities"])
    fused = model.fuse()
    balanced = model.fuse(balance={LayerName("logits/Conv2D"): tuple(np.linspace(0.5, 2.0, 16))})
    for graph in (fused, balanced):
        assert len(graph.weights) == sum(layer.weights is not None for layer in graph.layers.values()) > 2
        for name, values in graph.weights.items():
            np.testing.assert_array_equal(const_value(graph.view.nodes[name]), values)


def test_weights_that_are_fed_are_those_of_the_layers():
    """Also those that were folded, which begin where TensorFlow does not copy them."""

    def make():
        y = batch_norm(conv(placeholder(), 16), 16, "bn", 13)
        tf.nn.conv2d(y, normal((1, 1, 16, 32), 14), 1, "SAME", name="out")

    fused = fuse(GraphView(build(make)))
    rest, weights = take_weights_out(fused.graph_def, set(fused.view.nodes), fused.weights)
    assert len(fused.weights) == 2
    for name, values in fused.weights.items():
        assert weights[name] is values and values.ctypes.data % 64 == 0
    assert not any(node.op == "Const" and node.name in weights for node in rest.node)
