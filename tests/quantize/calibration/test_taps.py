"""Taps see what runs in the caller's session, whatever TensorFlow's optimizer makes of the graph."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from graphs import batch_norm, build, build_v1, normal, run, tf1, unoptimized
from grids import grid
from layers import LAYERS
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.calibration.calibrator import Calibrator
from amct_tensorflow.quantize.calibration.taps import attach_tap, fetches_to_calibrate
from amct_tensorflow.quantize.config.defaults import default_config


def on_images(first):
    """What takes images alone is given rows and sequences as images, and volumes not at all."""

    def on_anything(x):
        if x.shape.rank == 4:
            return first(x)
        if x.shape.rank > 4:
            return x * 2.0
        images = tf.reshape(x, [-1, *[1] * (4 - x.shape.rank), *x.shape[1:]])
        return tf.reshape(first(images), [-1, *x.shape[1:]])

    return on_anything


def transposed_twice(x):
    order = [*range(x.shape.rank)][::-1]
    return tf.transpose(tf.transpose(x, order), order)


def reshaped_twice(x):
    return tf.reshape(tf.reshape(x, [-1, *x.shape[1:-1], 2, 2]), [-1, *x.shape[1:]])


def cast_to_the_same(x):
    return tf.raw_ops.Cast(x=x, DstT=tf.float32)


def einsum(x):
    letters = "abcd"[: x.shape.rank - 1]
    return tf.einsum(f"{letters}y,yz->{letters}z", x, normal((4, 4), 11))


FIRST = {
    "nothing": lambda x: x,
    "FusedBatchNorm": on_images(lambda x: batch_norm(x, 4, "first", op="FusedBatchNorm")),
    "FusedBatchNormV2": on_images(lambda x: batch_norm(x, 4, "first", op="FusedBatchNormV2")),
    "FusedBatchNormV3": on_images(lambda x: batch_norm(x, 4, "first", op="FusedBatchNormV3")),
    "Transposes": transposed_twice,
    "Reshapes": reshaped_twice,
    "Cast": cast_to_the_same,
    "Casts": lambda x: tf.cast(tf.cast(x, tf.float64), tf.float32),
    "Identities": lambda x: tf.identity(tf.stop_gradient(tf.identity(x))),
    "Mul": lambda x: x * tf.constant(0.5),
    "Mul and Add": lambda x: x * normal((4,), 12) + normal((4,), 13),
    "Mul by one": lambda x: x * tf.constant(1.0),
    "Add of zero": lambda x: x + tf.zeros([4]),
    "RealDiv": lambda x: x / tf.constant(2.0),
    "Sub": lambda x: x - tf.constant(0.5),
    "Neg": lambda x: tf.negative(tf.negative(x)),
    "Pad": lambda x: tf.pad(x, [[0, 0]] * (x.shape.rank - 1) + [[0, 0]]),
    "Squeeze": lambda x: tf.squeeze(tf.expand_dims(x, 1), 1),
    "Concat": lambda x: tf.concat([x], -1),
    "Relu": tf.nn.relu,
    "LeakyRelu": lambda x: tf.maximum(x, 0.2 * x),
    "LeakyRelu, its factor first": lambda x: tf.maximum(tf.constant(0.2) * x, x),
    "swish": lambda x: x * tf.sigmoid(x),
    "hard swish": lambda x: x * tf.nn.relu6(x + 3.0) / 6.0,
    "gelu": lambda x: tf.nn.gelu(x, approximate=False),
    "gelu of tanh": lambda x: tf.nn.gelu(x, approximate=True),
    "layer normalization": lambda x: (x - tf.reduce_mean(x, -1, True)) * tf.math.rsqrt(tf.reduce_mean(x * x) + 1.0),
    "Reverse": lambda x: tf.reverse(tf.reverse(x, [-1]), [-1]),
    "Einsum": einsum,
    "Conv2D": on_images(lambda x: tf.nn.conv2d(x, normal((1, 1, 4, 4), 11), 1, "SAME")),
}  # fmt: skip


def every_rewrite():
    """What a session may ask of TensorFlow's optimizer, all at once and as often as it likes."""
    options = tf1.ConfigProto()
    rewrites = options.graph_options.rewrite_options
    rewrites.min_graph_nodes = -1
    rewrites.meta_optimizer_iterations = RewriterConfig.TWO
    for name in ("constant_folding", "remapping", "arithmetic_optimization", "dependency_optimization"):
        setattr(rewrites, name, RewriterConfig.AGGRESSIVE)
    rewrites.debug_stripper = rewrites.loop_optimization = RewriterConfig.ON
    return options


def calibrate(graph_def, feeds, outputs, options, do_fusion=True):
    """Runs a model once, in a session with these options; returns the factors that are found."""
    model = FloatModel.of_graph(import_graph(graph_def, "test"), outputs)
    config = replace(default_config(model.layers, model.op_types), do_fusion=do_fusion)
    calibrator = Calibrator(model, config, lambda _: None)
    with tf1.Session(graph=model.graph, config=options) as session:
        session.run([f"{name}:0" for name in outputs], {f"{name}:0": value for name, value in feeds.items()})
    return calibrator.check_complete().factors


def same_factors(one, other):
    assert one.keys() == other.keys()
    for name, factors in one.items():
        np.testing.assert_allclose(other[name].scale_d, factors.scale_d, rtol=1e-5, err_msg=name)


HOW = {"default": (None, True), "default, not fused": (None, False), "every rewrite": (every_rewrite(), True)}


@grid(op_type=LAYERS, how=HOW, third=range(3))
def test_whatever_stands_first_in_front_of_whatever_layer(op_type, how, third):
    """One graph with an input for each: the batch is complete only if every one of the taps has run."""
    layer, (options, do_fusion) = LAYERS[op_type], HOW[how]
    shape = (*layer.lengths, 4)
    firsts = list(FIRST.values())[third::3]

    def make():
        for index, first in enumerate(firsts):
            x = tf1.placeholder(tf.float32, shape, name=f"x{index}")
            tf.identity(layer(first(x)), name=f"out{index}")

    graph_def, outputs = build(make), [f"out{index}" for index in range(len(firsts))]
    feeds = {f"x{index}": normal([3 if n is None else n for n in shape], index) + 0.1 for index in range(len(firsts))}
    found = calibrate(graph_def, feeds, outputs, options, do_fusion)
    assert len(found) >= len(firsts)
    same_factors(found, calibrate(graph_def, feeds, outputs, unoptimized(), do_fusion))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float64", "bfloat16", "bool"])
@pytest.mark.parametrize("options", [None, every_rewrite()], ids=["default", "every rewrite"])
def test_inputs_of_other_types(dtype, options):
    """They are not what the layer reads; what it reads of them is."""

    def make():
        x = tf1.placeholder(dtype, (None, 6, 6, 4), name="x")
        tf.nn.relu(tf.nn.conv2d(tf.cast(x, tf.float32), normal((3, 3, 4, 5), 1), 1, "VALID"), name="out")

    x = np.abs(normal((3, 6, 6, 4), 2)) * 50
    feeds = {"x": tf.cast(x > 20 if dtype == "bool" else x, dtype).numpy()}
    same_factors(*(calibrate(build(make), feeds, ["out"], each) for each in (options, unoptimized())))


def test_text_and_tables_in_front_of_a_layer():
    def make():
        words = tf1.placeholder(tf.string, [None, 3], name="x")
        buckets = tf.strings.to_hash_bucket_fast(words, 7)
        tf.nn.relu(tf.matmul(tf.reshape(tf.gather(normal((7, 2), 3), buckets), [-1, 6]), normal((6, 4), 4)), name="out")

    feeds = {"x": np.array([["a", "b", "c"], ["d", "e", "f"]], object)}
    same_factors(*(calibrate(build(make), feeds, ["out"], each) for each in (None, unoptimized())))


def seen(graph_def, tensor, readers, fetches, feeds, options=None):
    """Returns what a tap on a tensor was given, and the values of what was fetched."""
    graph, looked = import_graph(graph_def, "test"), []
    attach_tap(graph, readers, tensor, lambda value: looked.append(value.copy()))
    with tf1.Session(graph=graph, config=options) as session:
        return looked, session.run(fetches, feeds)


@pytest.mark.parametrize("options", [None, every_rewrite()], ids=["default", "every rewrite"])
def test_a_tap_changes_neither_names_nor_values(options):
    def make():
        y = tf.sin(tf1.placeholder(tf.float32, [None, 4], name="x"), name="sin")
        tf.add(tf.identity(y, name="copy"), tf.multiply(y, y, name="square"), name="out")

    feeds, fetches = {"x:0": normal((3, 4))}, ["sin:0", "square:0", "out:0"]
    looked, values = seen(build(make), "sin:0", ["copy", "square"], fetches, feeds, options)
    assert len(looked) == 1
    for value, expected in zip(values, run(build(make), ["sin", "square", "out"], {"x": feeds["x:0"]}), strict=True):
        np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(looked[0], values[0])


def test_a_tap_on_what_is_fed_sees_what_is_fed():
    def make():
        tf.exp(tf.sin(tf1.placeholder(tf.float32, [None, 4], name="x"), name="sin"), name="out")

    looked, (value,) = seen(build(make), "sin:0", ["out"], ["out:0"], {"sin:0": normal((3, 4))})
    np.testing.assert_array_equal(looked[0], normal((3, 4)))
    np.testing.assert_allclose(value, np.exp(normal((3, 4))), rtol=1e-6)


@pytest.mark.parametrize("write", [build, build_v1], ids=["functions", "Switch and Enter"])
def test_readers_that_are_loops_and_branches(write):
    def make():
        x = tf.sin(tf1.placeholder(tf.float32, [None, 4], name="x"), name="sin")
        y = tf1.cond(tf1.placeholder(tf.bool, [], name="flag"), lambda: x + 1.0, lambda: x - 1.0)
        _, z = tf1.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, v + x), [0, x])
        tf.add(y, z, name="out")

    graph_def, feeds = write(make), {"x:0": normal((3, 4)), "flag:0": True}
    view = GraphView(graph_def)
    readers = {edge.node.name for edge in view.consumers("sin") if not view.is_control(edge)}
    looked, (value,) = seen(graph_def, "sin:0", sorted(readers), ["out:0"], feeds)
    assert len(looked) == 1
    np.testing.assert_allclose(value, 5 * np.sin(feeds["x:0"]) + 1, rtol=1e-5, atol=1e-5)


def two_inputs():
    one, other = (tf1.placeholder(tf.float32, [None, 4], name=name) for name in ("one", "other"))
    tf.add(tf.sin(one, name="sin"), tf.cos(other, name="cos"), name="out")


def tapped_graph(*taps):
    """Returns a graph with a tap per tensor and reader, and what each will have seen."""
    graph, looked = import_graph(build(two_inputs), "test"), {tensor: [] for tensor, _ in taps}
    for tensor, reader in taps:
        attach_tap(graph, [reader], tensor, lambda value, tensor=tensor: looked[tensor].append(value.copy()))
    return graph, looked


def test_taps_on_inputs_see_a_batch_without_the_model():
    graph, looked = tapped_graph(("one:0", "sin"), ("other:0", "cos"))
    feeds = {"one:0": normal((3, 4), 1), "other:0": normal((3, 4), 2)}
    with tf1.Session(graph=graph) as session:
        assert session.run(fetches_to_calibrate(graph, ["out:0"]), feeds) == [None, None]
        np.testing.assert_allclose(session.run("out:0", feeds), np.sin(feeds["one:0"]) + np.cos(feeds["other:0"]), 1e-5)
    for tensor, values in looked.items():
        assert len(values) == 2 and all(np.array_equal(value, feeds[tensor]) for value in values)


def test_only_the_latest_tap_on_an_input_is_run():
    graph, looked = tapped_graph(("one:0", "sin"))
    latest = []
    attach_tap(graph, ["sin"], "one:0", lambda value: latest.append(value.copy()))
    (tap,) = fetches_to_calibrate(graph, ["out:0"])
    with tf1.Session(graph=graph) as session:
        session.run(tap, {"one:0": normal((3, 4))})
    assert len(latest) == 1 and looked == {"one:0": []}


@pytest.mark.parametrize("taps", [(), (("one:0", "sin"), ("cos:0", "out"))], ids=["none", "inside"])
def test_without_taps_on_inputs_alone_outputs_are_run(taps):
    (output,) = fetches_to_calibrate(tapped_graph(*taps)[0], ["out:0"])
    assert output.name == "out:0"


@pytest.mark.parametrize("taps", [(), (("one:0", "sin"),)], ids=["none", "on an input"])
@pytest.mark.parametrize("name", ["nothing:0", "out:1"])
def test_outputs_that_are_not_there_are_refused(taps, name):
    with pytest.raises(KeyError):
        fetches_to_calibrate(tapped_graph(*taps)[0], [name])
