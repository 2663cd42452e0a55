"""What a graph alone tells about images is what running it on some of them finds."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import build, normal, run, tf1
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from amct_tensorflow.graph.view import GraphView, static_shapes
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.ops.image_independence import computes_each_image_alone

IMAGES, SHAPE = 6, (4, 6, 3)


def told(graph_def, tensors=("out:0",), sources=("x:0",)):
    view = GraphView(graph_def, static_shapes(import_graph(graph_def, "test")))
    return computes_each_image_alone(view, sources, tensors)


def graph(act, shape=SHAPE):
    return build(lambda: tf.identity(act(tf1.placeholder(tf.float32, [None, *shape], name="x")), name="out"))


def convolve(y, **options):
    return tf.nn.conv2d(y, normal((2, 2, int(y.shape[-1]), 3), 1), 1, **{"padding": "SAME", **options})


def batch_norm(y, is_training=False):
    given = [] if is_training else [normal((3,), 4), np.ones(3, np.float32)]
    return tf1.nn.fused_batch_norm(y, normal((3,), 2), normal((3,), 3), *given, is_training=is_training)[0]


ALONE = {
    "convolution": convolve,
    "dilated": lambda y: tf.nn.atrous_conv2d(y, normal((2, 2, 3, 3), 1), 1, "SAME"),
    "depthwise": lambda y: tf.nn.depthwise_conv2d(y, normal((2, 2, 3, 1), 1), [1, 1, 1, 1], "SAME"),
    "bias": lambda y: tf.nn.bias_add(y, normal((3,), 1)),
    "batch norm": batch_norm,
    "relu": tf.nn.relu,
    "hard swish": lambda y: y * tf.nn.relu6(y + 3) / 6,
    "residual": lambda y: y + tf.sigmoid(convolve(y)),
    "a value per channel": lambda y: y * normal((1, 1, 1, 3), 1),
    "gates": lambda y: y * tf.sigmoid(tf.reduce_mean(y, [1, 2], keepdims=True)),
    "max pool": lambda y: tf.nn.max_pool2d(y, 2, 1, "SAME"),
    "average pool": lambda y: tf.nn.avg_pool2d(y, 2, 1, "SAME"),
    "maximum along rows": lambda y: tf.reduce_max(y, 1, keepdims=True) + y,
    "from the last axis": lambda y: tf.reduce_sum(y, [-1, -2], keepdims=True) * y,
    "pad": lambda y: convolve(tf.pad(y, [[0, 0], [1, 0], [0, 1], [0, 0]]), padding="VALID"),
    "mirror": lambda y: convolve(tf.pad(y, [[0, 0], [1, 0], [1, 0], [0, 0]], "REFLECT"), padding="VALID"),
    "resize": lambda y: tf.image.resize(y, (4, 6), "nearest"),
    "side by side": lambda y: convolve(tf.concat([y, tf.nn.relu(y)], 3)),
    "reshape": lambda y: tf.reshape(tf.reshape(y, [-1, 72]) @ normal((72, 72), 1, 0.1), [-1, *SHAPE]),
    "constant on its way": lambda y: y + tf.nn.relu(tf.constant(normal((4, 6, 3), 1))),
}  # fmt: skip
TOGETHER = {
    "mean of images": lambda y: y - tf.reduce_mean(y, 0, keepdims=True),
    "mean of all": lambda y: y - tf.reduce_mean(y),
    "counted backwards": lambda y: y - tf.reduce_sum(y, -4, keepdims=True),
    "batch norm in training": lambda y: batch_norm(y, is_training=True),
    "fewer axes": lambda y: y + tf.reduce_mean(y, [1, 2]),
    "another image": lambda y: y + tf.pad(y, [[1, 0], [0, 0], [0, 0], [0, 0]])[:-1],
    "below each other": lambda y: tf.concat([y, y], 0),
    "beside one of a constant": lambda y: tf.concat([y, tf.zeros([IMAGES, 4, 6, 1])], 3),
    "a value per image": lambda y: y * normal((IMAGES, 1, 1, 1), 1),
    "an axis in front": lambda y: (y[None] + normal((2, 1, 1, 1, 1), 1))[1],
    "attention between images": lambda y: tf.reshape(y, [-1, 72]) @ tf.transpose(tf.reshape(y, [-1, 72])),
    "turned matrices": lambda y: tf.matmul(tf.reshape(y, [-1, 72]), tf.ones([IMAGES, 2]), transpose_a=True),
    "parts of images": lambda y: tf.reshape(y, [-1, 36]),
    "as many as there are": lambda y: tf.reshape(y, [IMAGES, -1]),
    "number of images": lambda y: y * tf.cast(tf.shape(y)[0], tf.float32),
    "chance": lambda y: y * tf.random.uniform([1, 4, 6, 3]),
    "sorted": lambda y: tf.sort(y, 0),
    "second output": lambda y: tf.split(y, 3, 3)[1],
    "pooled over images": lambda y: tf.transpose(
        tf.nn.max_pool2d(tf.transpose(y, [3, 1, 0, 2]), [1, 2], 1, "SAME"), [2, 1, 3, 0]
    ),
}  # fmt: skip


def run_in_parts(graph_def, x, length=2):
    parts = [run(graph_def, ["out"], {"x": x[start : start + length]})[0] for start in range(0, len(x), length)]
    return np.concatenate(parts)


@pytest.mark.parametrize("name", ALONE)
def test_what_computes_each_image_alone(name):
    graph_def = graph(ALONE[name])
    assert told(graph_def)
    x = normal((IMAGES, *SHAPE), 7)
    np.testing.assert_allclose(run_in_parts(graph_def, x), run(graph_def, ["out"], {"x": x})[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TOGETHER)
def test_what_may_not(name):
    assert not told(graph(TOGETHER[name]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(sorted((ALONE | TOGETHER).keys())), max_size=5))
def test_whatever_is_told_of_chains_holds(steps):
    def act(y):
        for step in steps:
            y = tf.ensure_shape((ALONE | TOGETHER)[step](y), [None, *SHAPE])
        return y

    try:
        graph_def = graph(act)
    except ValueError:  # the shape is another behind such a step
        assume(False)
    if told(graph_def):
        x = normal((IMAGES, *SHAPE), 7)
        whole = run(graph_def, ["out"], {"x": x})[0]
        scale = 1e-5 * max(1.0, float(np.abs(whole).max()))
        np.testing.assert_allclose(run_in_parts(graph_def, x), whole, rtol=1e-4, atol=scale)


def test_a_batch_norm_is_in_training_unless_it_says_otherwise():
    graph_def = graph(batch_norm)
    (node,) = (node for node in graph_def.node if node.op.startswith("FusedBatchNorm"))
    assert told(graph_def)
    del node.attr["is_training"]
    view = GraphView(graph_def, static_shapes(import_graph(graph_def, "test")))
    assert not computes_each_image_alone(view, ["x:0"], ["out:0"])


def test_squeezed_axes_must_be_named():
    def pooled(squeeze):
        return graph(lambda y: squeeze(tf.reduce_mean(y, [1, 2], keepdims=True)) @ normal((3, 2), 1))

    assert told(pooled(lambda y: tf.squeeze(y, [1, -2])))
    assert not told(build(lambda: tf.squeeze(tf1.placeholder(tf.float32, [None, 1, 3], name="x"), name="out")))
    assert not told(build(lambda: tf.squeeze(tf1.placeholder(tf.float32, [None, 3], name="x")[:1], [0], name="out")))


def test_images_behind_a_tensor_inside():
    """What comes before a fed tensor is not computed, whatever it is."""

    def make():
        y = tf.identity(tf.sort(tf1.placeholder(tf.float32, [None, *SHAPE], name="x"), 0), name="inside")
        tf.identity(convolve(y), name="out")

    graph_def = build(make)
    assert told(graph_def, sources=["inside:0"]) and not told(graph_def)


def test_sources_of_no_known_shape():
    for shape in (None, []):
        graph_def = build(lambda shape=shape: tf.nn.relu(tf1.placeholder(tf.float32, shape, name="x"), name="out"))
        assert not told(graph_def)


def test_what_no_image_reaches_holds_no_images():
    graph_def = build(lambda: (tf1.placeholder(tf.float32, [None, 3], name="x"), tf.constant([1.0], name="c")))
    assert not told(graph_def, ["c:0"]) and told(graph_def, ["x:0"])
