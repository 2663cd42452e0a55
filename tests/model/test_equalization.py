"""Equalization groups, and dividing them by factors per channel: the model computes the same."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import batch_norm, build, nchw_on_cpu, normal, rng, run, tf1, unoptimized
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amct_tensorflow.errors import RecordError
from amct_tensorflow.graph.view import GraphView, static_shapes
from amct_tensorflow.model.equalization import equalize
from amct_tensorflow.model.equalization_groups import find_equalization_groups
from amct_tensorflow.model.fusion import fuse

IMAGES = normal((2, 8, 8, 3), 1)


def conv(x, channels, name, seed, size=1, bias=True):
    weights = normal((size, size, int(x.shape[-1]), channels), seed, 0.5)
    y = tf.nn.conv2d(x, weights, 1, "SAME", name=name)
    return tf.nn.bias_add(y, normal((channels,), seed), name=f"{name}/bias") if bias else y


def stem():
    return conv(tf1.placeholder(tf.float32, [None, 8, 8, 3], name="x"), 6, "stem", 2, 3)


def end(x, name="last"):
    tf.identity(conv(x, 4, name, 9), name="out")


def residual():
    """A residual group of two sums, whose readers are convolutions, one of them depthwise."""
    x = stem()
    y = tf.nn.relu6(conv(x, 8, "expand", 3))
    x = x + batch_norm(conv(y, 6, "project", 4, bias=False), 6, "bn", 5)
    y = tf.nn.depthwise_conv2d(x, normal((3, 3, 6, 1), 6, 0.5), [1, 1, 1, 1], "SAME", name="dw")
    x = x + conv(tf.nn.relu6(y), 6, "second", 7)
    end(x)


def through(make):
    """Returns a net with something between two layers."""

    def net():
        end(make(stem()))

    return net


def shapes_of(graph_def):
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    return static_shapes(graph)


def fused_of(graph_def, outputs=("out",)):
    return fuse(GraphView(graph_def, shapes_of(graph_def)), keep=outputs)


def without_weights(fused):
    return {name for name, layer in fused.layers.items() if layer.weights is None}


def groups(make, outputs=("out",)):
    return find_equalization_groups(fused_of(build(make), outputs), outputs)


def names(found):
    """Returns producers and readers of the free groups."""
    return [(tuple(group.producers), group.readers) for group in found.groups if group.product is None]


def test_a_residual_stream():
    found = groups(residual)
    assert names(found) == [(("stem", "project", "second"), ("expand", "dw", "last"))]
    assert found.groups[0].channels == 6
    assert "Relu6" in found.not_free["project"] and "Relu6" in found.not_free["second"]
    assert "Placeholder" in found.not_free["stem"]


PASSES = {
    "nothing": lambda x: x,
    "relu": tf.nn.relu,
    "leaky relu": tf.nn.leaky_relu,
    "max pool": lambda x: tf.nn.max_pool2d(tf.nn.relu(x), 3, 2, "SAME"),
    "average pool": lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID"),
    "pad": lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]),
    "mean": lambda x: tf.reduce_mean(x, [1, 2], keepdims=True),
}


def prelu(x):
    """As Keras writes it: a slope per channel, of the negated ReLU of the negated value."""
    return tf.nn.relu(x) + normal((6,), 3) * tf.nn.relu(-x)


def prelu_of_abs(x):
    """As TensorFlow 1 wrote it."""
    return tf.nn.relu(x) + normal((6,), 3) * (x - tf.abs(x)) * 0.5


PASSES.update(
    {
        "a constant": lambda x: tf.nn.relu(x) + 1.0,
        "prelu": prelu,
        "prelu of absolute values": prelu_of_abs,
        "resize bilinear": lambda x: tf1.image.resize_bilinear(x, [11, 5]),
        "resize nearest": lambda x: tf1.image.resize_nearest_neighbor(x, [16, 16]),
        "a bound": lambda x: tf.minimum(tf.nn.relu(x), normal((6,), 3) ** 2),
        "a reader of the shape": lambda x: tf.reshape(tf.nn.relu(x), [tf.shape(x)[0], 8, 8, 6]),
        "gelu": lambda x: x * (0.5 * (1.0 + tf.math.erf(x / 2**0.5))),
        "a shortcut": lambda x: x + tf.nn.relu(-x),
        "squeeze and excite": lambda x: x * tf.sigmoid(conv(tf.reduce_mean(x, [1, 2], keepdims=True), 6, "squeeze", 6)),
        "rows side by side": lambda x: tf.concat([x, x[:, :2]], 1),
    }
)
# What takes the factors in on one side, so that the layer before it keeps its weights.
CUTS = {
    "hard swish": lambda x: x * tf.nn.relu6(x + 3.0) * (1 / 6),
    "hard swish, its gate scaled": lambda x: x * (tf.nn.relu6(x + 3.0) * (1 / 6)),
    "half a gelu": lambda x: 0.5 * x * (1.0 + tf.math.erf(x / 2**0.5)),
    "a product with a constant": lambda x: tf.nn.relu6(x) * normal((6,), 3),
    "a quotient by a constant": lambda x: tf.sigmoid(x) / 3.0,
    "a batch norm": lambda x: batch_norm(tf.nn.relu6(x), 6, "between", 3),
    "a batch norm in small ops": lambda x: tf.nn.elu(x) * normal((6,), 3) + normal((6,), 4),
}
STOPS = {
    "relu6": tf.nn.relu6,
    "sigmoid": tf.sigmoid,
    "concatenation": lambda x: tf.concat([x, x], -1),
    "an input": lambda x: x + tf1.placeholder(tf.float32, [None, 8, 8, 6], name="other"),
    "padded channels": lambda x: tf.pad(x, [[0, 0], [0, 0], [0, 0], [1, 1]]),
    "a sum over channels": lambda x: tf.reduce_mean(x, -1, keepdims=True),
    "ones in the padding": lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=1.0),
    "an output": lambda x: tf.nn.relu(x, name="asked"),
    "another reader": lambda x: x * tf.sigmoid(x),
    "channels that come from broadcasting": lambda x: x + conv(x, 1, "one", 4),
}
# What can stand behind anything.
STEPS = [
    *(make for name, make in PASSES.items() if name != "a reader of the shape"),
    *CUTS.values(),
    *(STOPS[name] for name in ("relu6", "sigmoid", "another reader")),
    lambda x: tf.concat([x[..., :2], tf.tanh(x)[..., 2:]], -1),
]


def factors(number, seed=0):
    return tuple((2.0 ** rng(seed).uniform(-3, 3, number)).astype(np.float32).tolist())


@pytest.mark.parametrize("make", [residual, *map(through, PASSES.values())], ids=["residual", *PASSES])
def test_the_model_computes_the_same(make):
    graph_def = build(make)
    fused = fused_of(graph_def)
    values = factors(6)
    balanced = equalize(fused, {"last": values}, ["out"])
    (before,), (after,) = (run(one, ["out"], {"x": IMAGES}, unoptimized()) for one in (graph_def, balanced.graph_def))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())
    np.testing.assert_allclose(
        balanced.layers["last"].weights[0, 0],
        np.array(values)[:, None] * normal((6, 4), 9, 0.5).reshape(6, 4),
        rtol=1e-6,
    )
    (old,), (new,) = (run(one, ["stem/bias"], {"x": IMAGES}, unoptimized()) for one in (graph_def, balanced.graph_def))
    np.testing.assert_allclose(new * np.array(values), old, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [*map(through, CUTS.values())], ids=CUTS)
def test_a_product_with_a_constant_takes_factors_in(make):
    graph_def = build(make)
    fused = fused_of(graph_def)
    (group,) = (group for group in find_equalization_groups(fused, ["out"]).groups if "last" in group.readers)
    balanced = equalize(fused, {"last": factors(6)}, ["out"])
    assert group.is_free and not group.producers
    assert balanced.layers["stem"] is fused.layers["stem"] and balanced.layers["last"].digest != fused.layers["last"]
    (before,), (after,) = (run(one, ["out"], {"x": IMAGES}, unoptimized()) for one in (graph_def, balanced.graph_def))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(STEPS), min_size=2, max_size=4))
@example([PASSES["mean"], PASSES["average pool"]])
def test_whatever_stands_between_layers_the_model_computes_the_same(steps):
    def make():
        x = stem()
        for index, step in enumerate(steps):
            with tf1.name_scope(f"step{index}"):
                x = step(x) if x.shape[1] > 1 else x  # of a single place nothing can be pooled
            x = conv(x, 6, f"layer{index}", index) if index % 2 else x
        end(x)

    graph_def = build(make)
    fused = fused_of(graph_def)
    found = find_equalization_groups(fused, ["out"])
    balanced = equalize(fused, {group.readers[0]: factors(group.channels) for group in found.groups}, ["out"])
    assert balanced.balance.keys() == fused.layers.keys() - without_weights(fused)
    (before,), (after,) = (run(one, ["out"], {"x": IMAGES}, unoptimized()) for one in (graph_def, balanced.graph_def))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())


def test_layers_left_out_follow_the_others_of_their_stream():
    fused = fused_of(build(residual))
    balanced = equalize(fused, {"dw": factors(6)}, ["out"])
    assert balanced.balance == dict.fromkeys(["expand", "dw", "last"], factors(6))
    assert balanced.layers["expand"].digest != fused.layers["expand"].digest
    assert equalize(fused, {}, ["out"]) is fused


@pytest.mark.parametrize("make", [*map(through, STOPS.values())], ids=STOPS)
def test_in_front_of_other_layers_a_product_stands(make):
    """What yields the tensor, and what else reads it, stays as it is."""
    graph_def = build(make)
    outputs = [node.name for node in graph_def.node if node.name in ("out", "asked")]
    fused = fused_of(graph_def, outputs)
    found = find_equalization_groups(fused, outputs)
    (group,) = (group for group in found.groups if "last" in group.readers)
    assert found.not_free["last"] and not group.producers and not group.nodes
    assert group.product.tensor == f"{fused.input_of('last')}:0"
    balanced = equalize(fused, {"last": factors(group.channels)}, outputs)
    product = balanced.view.producer(balanced.input_of("last"))
    assert (product.op, product.input[0]) == ("Mul", fused.input_of("last"))
    assert balanced.products == {"last": product.name} and balanced.origins[product.name] == ()
    ((tensor, divided),) = balanced.divided.items()
    assert (tensor.node, divided.tensor) == (product.name, group.product.tensor)
    assert divided.factors.reshape(-1) == pytest.approx(factors(group.channels))
    assert balanced.view.shape(product.name) == fused.view.shape(product.input[0])
    for name in fused.layers.keys() - {"last"}:
        assert balanced.layers[name] is fused.layers[name]
    feeds = {node.name: IMAGES for node in graph_def.node if node.name == "x"}
    feeds.update({node.name: normal((2, 8, 8, 6), 4) for node in graph_def.node if node.name == "other"})
    values = (run(one, outputs, feeds, unoptimized()) for one in (graph_def, balanced.graph_def))
    for before, after in zip(*values, strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())


def test_layers_that_read_one_tensor_share_a_product():
    """Other readers go on reading the tensor itself."""

    def make():
        x = tf.sigmoid(tf1.placeholder(tf.float32, [None, 5, 6], name="x"))
        y = tf.matmul(x, normal((6, 6), 1), name="first") + tf.matmul(x, normal((6, 6), 2), name="second")
        tf.add(x, y, name="out")

    graph_def = build(make)
    fused = fused_of(graph_def)
    (group,) = find_equalization_groups(fused, ["out"]).groups
    assert set(group.readers) == {"first", "second"} and group.product.tensor == "Sigmoid:0"
    balanced = equalize(fused, {"second": factors(6)}, ["out"])
    assert balanced.input_of("first") == balanced.input_of("second") == f"{group.readers[0]}/balanced_input"
    assert balanced.view.nodes["out"].input[0] == "Sigmoid"
    assert balanced.balance == dict.fromkeys(["first", "second"], factors(6))
    x = normal((2, 5, 6), 3)
    (before,), (after,) = (run(one, ["out"], {"x": x}, unoptimized()) for one in (graph_def, balanced.graph_def))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("moved_first", [False, True])
def test_layers_that_read_a_tensor_as_it_is_and_moved_share_a_product(moved_first):
    """It stands in front of what moves channels for both, whichever of them is looked at first."""

    def make():
        y = tf.expand_dims(tf.sigmoid(tf1.placeholder(tf.float32, [None, 5, 6], name="x")), 1)
        read = [y, tf.transpose(y, [0, 2, 1, 3])]
        one, other = (
            tf.matmul(each, normal((6, 4), index), name=f"layer{index}")
            for index, each in enumerate(read[::-1] if moved_first else read)
        )
        tf.add(one, other, name="out")

    graph_def = build(make)
    (group,) = find_equalization_groups(fused_of(graph_def), ["out"]).groups
    assert set(group.readers) == {"layer0", "layer1"} and group.product.tensor == "Sigmoid:0"
    balanced = equalize(fused_of(graph_def), {"layer0": factors(6)}, ["out"])
    x = normal((2, 5, 6), 3)
    (before,), (after,) = (run(one, ["out"], {"x": x}, unoptimized()) for one in (graph_def, balanced.graph_def))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def test_a_product_in_front_of_channels_first():
    def make():
        x = tf1.placeholder(tf.float32, [None, 6, 8, 8], name="x")
        y = tf.nn.conv2d(x, normal((3, 3, 6, 4), 3), 1, "SAME", data_format="NCHW", name="last")
        tf.identity(y, name="out")

    graph_def = build(make)
    balanced = equalize(fused_of(graph_def), {"last": factors(6)}, ["out"])
    x = normal((2, 6, 8, 8), 3)
    (before,), (after,) = (run(one, ["out"], {"x": x}, nchw_on_cpu()) for one in (graph_def, balanced.graph_def))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


def test_without_outputs_what_nothing_reads_is_one():
    def make():
        x = stem()
        tf.nn.relu(x, name="unread")
        end(x)

    assert names(groups(make)) == [(("stem",), ("last",))]
    assert "'unread' is an output" in groups(make, ()).not_free["last"]


def test_a_convolution_in_groups_takes_no_factors():
    def make():
        end(tf.nn.conv2d(stem(), normal((1, 1, 3, 6), 3), 1, "SAME", name="groups"))

    found = groups(make)
    assert names(found) == [(("groups",), ("last",))]
    assert "'groups' (Conv2D) reads" in found.not_free["groups"]
    assert not [group for group in found.groups if "groups" in group.readers]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"dw": factors(6), "last": factors(6, 1)}, "'dw' and 'last'"),
        ({"dw": factors(5)}, "5 values"),
        ({"nowhere": factors(6)}, "'nowhere'"),
    ],
)
def test_factors_that_do_not_fit_are_refused(given, words):
    with pytest.raises(RecordError, match=words):
        equalize(fused_of(build(residual)), given, ["out"])
