"""BatchNorms in front of layers."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import batch_norm, build, calibrate_and_save, nchw_on_cpu, normal, prepared, rng, run, signal_to_noise, tf1

from amct_tensorflow.graph.view import GraphView, static_shapes
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.fusion import fuse
from amct_tensorflow.model.fusion_before import fold_before
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.model.preparation.grouped_conv2d import rewrite_grouped_conv2d

X = normal((2, 6, 6, 4), 10)


def front(make_layer, shift=True):
    """x -> Relu -> BatchNorm -> what ``make_layer`` makes of it."""
    x = tf.nn.relu(tf1.placeholder(tf.float32, [None, 6, 6, 4], name="x"))
    if shift:
        return make_layer(batch_norm(x, 4, "bn", 13))
    return make_layer(x * normal((4,), 14))


def fold(graph_def, keep=("out",), unfused=()):
    view = GraphView(graph_def, static_shapes(import_graph(graph_def, "test")))
    return fold_before(fuse(view, keep=keep, unfused=unfused), keep, unfused)


def conv(x, padding="VALID", name="conv", size=3):
    return tf.nn.conv2d(x, normal((size, size, 4, 5), 11), 1, padding, name=name)


LAYERS = {
    "convolution": lambda x: tf.nn.relu(conv(x), name="out"),
    "with a bias": lambda x: tf.nn.relu(tf.nn.bias_add(conv(x), normal((5,), 1)), name="out"),
    "1x1 that could pad": lambda x: tf.nn.relu(conv(x, "SAME", size=1), name="out"),
    "depthwise": lambda x: tf.nn.relu(
        tf.nn.depthwise_conv2d(x, normal((3, 3, 4, 2), 2), [1, 1, 1, 1], "VALID", name="conv"), name="out"
    ),
    "two readers": lambda x: tf.add(conv(x), conv(x, name="conv2"), name="out"),
}


@pytest.mark.parametrize("make_layer", LAYERS.values(), ids=LAYERS)
def test_folds_into_layers_that_do_not_pad(make_layer):
    graph_def = build(lambda: front(make_layer))
    fused = fold(graph_def)
    needed = tf1.graph_util.extract_sub_graph(fused.graph_def, ["out"])
    assert not any(node.op.startswith("FusedBatchNorm") for node in needed.node)
    assert fused.input_of("conv") == "Relu" and fused.layers["conv"].absorbed[0] == "bn"
    np.testing.assert_allclose(run(fused.graph_def, ["out"], {"x": X}), run(graph_def, ["out"], {"x": X}), atol=1e-4)


def transposed(x):
    size = [len(X), 12, 12, 3]
    return tf.nn.relu(tf.nn.conv2d_transpose(x, normal((3, 3, 3, 4), 3), size, 2, "SAME", name="conv"), name="out")


@pytest.mark.parametrize(
    "make_layer",
    [
        lambda x: tf.nn.relu(conv(x, "SAME"), name="out"),
        transposed,
        lambda x: tf.add(tf.nn.max_pool2d(x, 3, 1, "VALID"), conv(x)[..., :4], name="out"),
        lambda x: tf.concat([tf.reshape(conv(x), [-1]), tf.reshape(tf.identity(x, name="kept"), [-1])], 0, name="out"),
    ],
    ids=["padding", "transposed", "another reader", "read as it is"],
)
def test_stays_where_it_would_not_be_exact_or_is_needed(make_layer):
    graph_def = build(lambda: front(make_layer))
    fused = fold(graph_def)
    assert fused.layers["conv"].absorbed == ()
    np.testing.assert_array_equal(run(fused.graph_def, ["out"], {"x": X}), run(graph_def, ["out"], {"x": X}))


@pytest.mark.parametrize("make_layer", [lambda x: tf.nn.relu(conv(x, "SAME"), name="out"), transposed])
def test_a_factor_alone_folds_into_any_layer(make_layer):
    graph_def = build(lambda: front(make_layer, shift=False))
    fused = fold(graph_def)
    assert fused.layers["conv"].absorbed == ("mul",) and fused.layers["conv"].bias is None
    np.testing.assert_allclose(run(fused.graph_def, ["out"], {"x": X}), run(graph_def, ["out"], {"x": X}), atol=1e-4)


def grouped(x):
    return tf.nn.relu(tf.nn.conv2d(x, normal((3, 3, 2, 6), 5), 1, "VALID", name="conv"), name="out")


def test_into_a_grouped_convolution_only_what_is_alike_for_all_groups_folds():
    stays = build(lambda: front(grouped))
    assert fold(prepared(stays, rewrite_grouped_conv2d)[0]).layers["conv"].absorbed == ()

    def make():
        grouped(tf1.placeholder(tf.float32, [None, 6, 6, 4], name="x") * 2.0 + 1.0)

    graph_def, _ = prepared(build(make), rewrite_grouped_conv2d)
    fused = fold(graph_def)
    layer = fused.layers["conv"]
    assert layer.absorbed == ("mul", "add")
    assert fused.accumulator_of("conv") == "conv/Snapshot" and fused.tail_of("conv") == "conv/BiasAdd"
    np.testing.assert_allclose(run(fused.graph_def, ["out"], {"x": X}), run(graph_def, ["out"], {"x": X}), atol=1e-4)


def test_a_batch_norm_that_is_asked_for_or_switched_off_stays():
    graph_def = build(lambda: front(LAYERS["convolution"]))
    assert fold(graph_def, keep=("bn", "out")).layers["conv"].absorbed == ()
    assert fold(graph_def, unfused=("conv",)).layers["conv"].absorbed == ()


@pytest.mark.parametrize("make_layer", [*LAYERS.values(), transposed], ids=[*LAYERS, "transposed"])
@pytest.mark.parametrize("shift", [True, False])
def test_a_layer_says_that_what_stands_before_it_was_kept(make_layer, shift):
    """The record tells how to fuse again: the layers that say so, without the configuration that asked for it."""
    graph_def = build(lambda: front(make_layer, shift))
    asked = fold(graph_def, unfused=("conv",))
    again = fold(graph_def, unfused=[name for name, layer in asked.layers.items() if layer.batch_norm_kept])
    assert {name: layer.digest for name, layer in again.layers.items()} == {
        name: layer.digest for name, layer in asked.layers.items()
    }


def test_an_output_that_would_change_its_value_keeps_its_layer_as_it_is():
    graph_def = build(lambda: front(conv))
    assert fold(graph_def, keep=("conv",)).layers["conv"].absorbed == ()


def test_the_bias_of_the_layer_before_is_its_own():
    """A linear bottleneck: what the second layer took from the first would be added twice in the quantized model."""

    def make():
        y = batch_norm(conv(tf1.placeholder(tf.float32, [None, 6, 6, 4], name="x")), 5, "bn", 13)
        tf.nn.relu(tf.nn.conv2d(y, normal((1, 1, 5, 3), 4), 1, "SAME", name="next"), name="out")

    model = FloatModel.of_graph(import_graph(build(make), "test"), ["out"])
    fused = model.fuse()
    assert fused.layers["conv"].absorbed == ("bn",) and fused.tail_of("conv") == "bn"
    assert fused.layers["next"].absorbed == () and fused.input_of("next") == "bn"


@pytest.mark.parametrize("constant", [normal((4,), 15), normal((1, 1, 1, 4), 15)])
@pytest.mark.parametrize("op", [tf.multiply, tf.add, tf.subtract])
def test_a_grey_image_that_is_broadcast_to_the_channels_stays_as_it_is(op, constant):
    """Without the node in front the layer would get one channel instead of four."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 6, 6, 1], name="x")
        tf.nn.relu(conv(op(x, constant, name="front")), name="out")

    graph_def = build(make)
    fused = fold(graph_def)
    assert fused.layers["conv"].absorbed == () and fused.input_of("conv") == "front"


def test_a_matrix_that_gets_an_axis_more_stays_as_it_is():
    def make():
        x = tf1.placeholder(tf.float32, [6, 6, 4], name="x")
        tf.nn.relu(conv(tf.multiply(x, normal((1, 1, 1, 4), 15), name="front")), name="out")

    assert fold(build(make)).input_of("conv") == "front"


def shifted(x):
    """Per channel a shift and a factor; fused float graphs without the shift would be far off."""
    return (x - 3.0 - normal((int(x.shape[-1]),), 16)) / 2.0


def dense(x, number, name=None):
    return tf.matmul(x, normal((int(x.shape[-1]), number), 17), name=name)


def dense_of_sequences(x, number):
    return tf.raw_ops.BatchMatMulV2(x=x, y=normal((int(x.shape[-1]), number), 18))


def window(x, number, size=1, name=None):
    return tf.nn.conv2d(x, normal((size, size, int(x.shape[-1]), number), 19), 1, "VALID", name=name)


def depthwise(x):
    return tf.nn.depthwise_conv2d(x, normal((3, 3, int(x.shape[-1]), 1), 20), [1] * 4, "VALID")


def volume(x, number):
    return tf.nn.conv3d(x, normal((1, 2, 2, int(x.shape[-1]), number), 21), [1] * 5, "VALID")


def of_two_readers(x):
    first = dense(shifted(x), 6)
    return dense(first * normal((6,), 22), 5) + dense(first * normal((6,), 23), 5)


def of_groups(x):
    return window(tf.nn.conv2d((x - 3.0) / 2.0, normal((3, 3, 2, 6), 24), 1, "VALID"), 5)


def of_a_sum(x):
    return window(tf.nn.relu(window(shifted(x), 5)) + window(shifted(x), 5, name="other"), 3)


def channels_first(x):
    moved = tf.transpose((x - 3.0 - normal((4,), 25)) / 2.0, [0, 3, 1, 2])
    for size, number, before in ((3, 5, 4), (1, 3, 5)):
        moved = tf.nn.conv2d(moved, normal((size, size, before, number), 26), 1, "VALID", data_format="NCHW")
    return tf.transpose(moved, [0, 2, 3, 1])


IMAGES, ROWS = (6, 6, 4), (6,)
CHAINS = {
    "dense": (ROWS, lambda x: dense(dense(shifted(x), 6) * normal((6,), 27), 5)),
    "three in a row": (ROWS, lambda x: dense(dense(dense(shifted(x), 6) * normal((6,), 27), 6), 5)),
    "two readers": (ROWS, of_two_readers),
    "a shift before each": (ROWS, lambda x: dense(tf.nn.relu(dense(shifted(x), 6)) - normal((6,), 28), 5)),
    "separable": (IMAGES, lambda x: window(depthwise(shifted(x)), 6)),
    "separable twice": (IMAGES, lambda x: window(depthwise(window(depthwise(shifted(x)), 6)), 3)),
    "convolution and dense": (IMAGES, lambda x: dense(tf.reshape(window(shifted(x), 6), [-1, 6]), 5)),
    "pooled": (IMAGES, lambda x: window(tf.nn.avg_pool2d(window(shifted(x), 6), 2, 2, "VALID"), 5)),
    "pooled first": (IMAGES, lambda x: window(tf.nn.avg_pool2d(shifted(x), 2, 1, "VALID"), 5)),
    "groups": (IMAGES, of_groups),
    "sum": (IMAGES, of_a_sum),
    "channels first": (IMAGES, channels_first),
    "volume": ((3, 4, 4, 4), lambda x: volume(volume(shifted(x), 6), 5)),
    "sequence": ((5, 6), lambda x: dense_of_sequences(dense_of_sequences(shifted(x), 6), 5)),
}  # fmt: skip


def chain(name):
    shape, make_layers = CHAINS[name]
    x = rng(29).uniform(0, 6, (16, *shape)).astype(np.float32)
    made = build(lambda: tf.identity(make_layers(tf1.placeholder(tf.float32, [None, *shape], name="x")), name="out"))
    return made, x


@pytest.mark.parametrize("name", CHAINS)
def test_what_reads_a_layer_that_gets_a_bias_reads_the_sum_with_it(name):
    graph_def, x = chain(name)
    (expected,) = run(graph_def, ["out"], {"x": x}, nchw_on_cpu())
    fused = FloatModel.of_graph(import_graph(graph_def, "test"), ["out"]).fuse()
    (actual,) = run(fused.graph_def, ["out"], {"x": x}, nchw_on_cpu())
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", [name for name in CHAINS if name != "channels first"])
def test_such_layers_are_quantized_as_they_are_in_float(name):
    graph_def, x = chain(name)
    (expected,) = run(graph_def, ["out"], {"x": x})
    assert signal_to_noise(expected, run(calibrate_and_save(graph_def, x), ["out"], {"x": x})[0]) > 30


@pytest.mark.parametrize("requested", ["first", "second"])
def test_a_sum_that_is_asked_for_gets_no_bias(requested):
    def make():
        first = dense(shifted(tf1.placeholder(tf.float32, [None, 6], name="x")), 6, "first")
        tf.identity(dense(first * normal((6,), 27), 5, "second"), name="out")

    graph_def, x = build(make), rng(29).uniform(0, 6, (16, 6)).astype(np.float32)
    fused = FloatModel.of_graph(import_graph(graph_def, "test"), [requested, "out"]).fuse()
    names = [requested, "out"]
    for expected, actual in zip(run(graph_def, names, {"x": x}), run(fused.graph_def, names, {"x": x}), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
