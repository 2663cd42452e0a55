"""Small networks in the forms that they have in the wild, by what wrote them."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from graphs import batch_norm, build, build_v1, nchw_on_cpu, normal, rng, save, tf1

import amct_tensorflow as amct
from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.model.model_file import import_graph

IMAGES = {"x": (2, 8, 8, 3)}


@dataclass(frozen=True)
class Form:
    """A form.

    Attributes:
        graph_def: makes the graph.
        left: what its outputs need when it is prepared and fused, without constants and placeholders; None if it does
            not matter.
        inputs: per placeholder the shape of what to feed, or the value.
        outputs: the operators asked for.
        options: makes the options of the session that runs it.
    """

    graph_def: Callable[[], Any]
    left: list[str] | None
    inputs: Mapping[str, Any]
    outputs: tuple[str, ...]
    options: Callable[[], Any]

    def feeds(self, seed=1):
        """Returns something to run it on."""
        return {
            name: normal(given, seed) if isinstance(given, tuple) else np.array(given)
            for name, given in self.inputs.items()
        }


FORMS: dict[str, Form] = {}


def form(left, inputs=IMAGES, outputs=("out",), options=lambda: None, graph_def=build_v1):
    """Registers a function that adds a form to the default graph, or of which ``graph_def`` makes the graph."""

    def register(make):
        FORMS[make.__name__] = Form(lambda: graph_def(make), left and sorted(left.split()), inputs, outputs, options)
        return make

    return register


def placeholder(*shape, name="x"):
    return tf1.placeholder(tf.float32, shape or [None, 8, 8, 3], name=name)


def conv(x, out, seed, size=3, padding="SAME", data_format="NHWC", **options):
    channels = x.shape[1 if data_format == "NCHW" else -1]
    weights = tf.constant(normal((size, size, channels, out), seed, 0.4))
    return tf.nn.conv2d(x, weights, 1, padding, data_format, name=f"conv{seed}", **options)


def depthwise(x, seed, **options):
    weights = tf.constant(normal((3, 3, x.shape[-1], 1), seed, 0.4))
    return tf.nn.depthwise_conv2d(x, weights, [1, 1, 1, 1], "SAME", name=f"depthwise{seed}", **options)


def dense(x, out, seed):
    return tf.matmul(x, tf.constant(normal((x.shape[-1], out), seed, 0.4)), name=f"dense{seed}")


def statistics(channels, seed):
    """Mean, variance, beta and gamma, as constants."""
    mean, beta = normal((2, channels), seed)
    variance, gamma = rng(seed).uniform(0.5, 2, (2, channels)).astype(np.float32)
    return [tf.constant(values) for values in (mean, variance, beta, gamma)]


def small_ops(x, seed, given=None):
    return tf.nn.batch_normalization(x, *(given or statistics(x.shape[-1], seed)), 1e-3, name=f"bn{seed}")


def flag(default=False):
    return tf1.placeholder_with_default(default, [], name="training")


# TensorFlow 1: a flag that says whether the network is being trained


@form("Conv2D BiasAdd Relu")
def flag_around_batch_norm():
    y = conv(placeholder(), 4, 1)
    mean, variance, beta, gamma = statistics(4, 2)
    y = tf1.cond(
        flag(),
        lambda: tf1.nn.fused_batch_norm(y, gamma, beta, is_training=True)[0],
        lambda: tf1.nn.fused_batch_norm(y, gamma, beta, mean, variance, is_training=False)[0],
    )
    tf.nn.relu(y, name="out")


@form("Conv2D BiasAdd Relu")
def flag_around_moments():
    """The flag chooses the mean and the variance; what it means is turned round twice."""
    y = conv(placeholder(), 4, 1)
    mean, variance, beta, gamma = statistics(4, 2)
    moments = tf.nn.moments(y, [0, 1, 2])
    inference = tf.logical_not(flag())
    chosen = [
        tf1.cond(inference, lambda value=value: tf.identity(value), lambda moment=moment: tf.identity(moment))
        for value, moment in zip((mean, variance), moments, strict=True)
    ]
    tf.nn.relu(small_ops(y, 2, [*chosen, beta, gamma]), name="out")


@form("Conv2D Conv2D BiasAdd Relu")
def flag_around_dropout_and_a_layer():
    """What stands between the two layers in training is random."""
    training = flag()
    y = conv(placeholder(), 4, 1)
    y = tf1.cond(training, lambda: tf.nn.dropout(y, rate=0.5), lambda: y)
    y = tf1.cond(training, lambda: y, lambda: conv(y, 4, 2))
    tf.nn.relu(batch_norm(y, 4, "bn"), name="out")


@form("Conv2D BiasAdd Relu", graph_def=build)
def flag_of_control_flow_v2():
    y = conv(placeholder(), 4, 1)
    tf.nn.relu(tf.cond(flag(), lambda: tf.nn.dropout(y, rate=0.5), lambda: small_ops(y, 2)), name="out")


@form("Conv2D Switch Switch Switch Identity Mul Merge Relu", inputs={**IMAGES, "flag": False})
def flag_that_must_be_fed():
    y = conv(placeholder(), 4, 1)
    chosen = tf1.placeholder(tf.bool, [], name="flag")
    tf.nn.relu(tf1.cond(chosen, lambda: y * 2.0, lambda: y), name="out")


# Batch normalization and biases


@form("Conv2D BiasAdd Relu DepthwiseConv2dNative BiasAdd Relu Mean MatMul BiasAdd Identity")
def batch_norms_in_small_ops():
    y = tf.nn.relu(small_ops(conv(placeholder(), 4, 1), 2))
    y = tf.nn.relu(small_ops(tf.nn.bias_add(depthwise(y, 3), normal((4,), 4)), 5))
    tf.identity(small_ops(dense(tf.reduce_mean(y, [1, 2]), 3, 6), 7), name="out")


@form("Conv2D BiasAdd Relu Conv2D BiasAdd")
def batch_norms_written_out():
    """As converters from other frameworks write them."""
    mean, variance, beta, gamma = statistics(4, 2)
    y = (conv(placeholder(), 4, 1) - mean) / tf.sqrt(variance + 1e-3) * gamma + beta
    y = conv(tf.nn.relu(y), 4, 3) - normal((1, 1, 1, 4), 4)
    tf.multiply(y, normal((1, 1, 4), 5), name="out")


@form("Conv2D BiasAdd")
def a_chain_of_everything():
    y = batch_norm(small_ops(tf.nn.bias_add(conv(placeholder(), 4, 1), normal((4,), 2)), 3), 4, "fused")
    tf.multiply(tf.identity(y * 0.7 + 0.1), normal((4,), 4), name="out")


@form("Conv2D Relu Conv2D BiasAdd Relu FusedBatchNormV3 Conv2D BiasAdd")
def batch_norms_before_layers():
    """Exact before the first, which does not pad; not before the second."""
    y = batch_norm(tf.nn.relu(conv(placeholder(), 4, 1)), 4, "valid", 2)
    y = batch_norm(tf.nn.relu(tf.nn.bias_add(conv(y, 4, 3, padding="VALID"), normal((4,), 4))), 4, "same", 5)
    tf.nn.bias_add(conv(y, 4, 6), normal((4,), 7), name="out")


@form("Conv2DBackpropInput BiasAdd Relu Shape StridedSlice Pack", inputs={"x": (2, 4, 4, 3)})
def a_transposed_convolution():
    x = placeholder(None, 4, 4, 3)
    size = tf.stack([tf.shape(x)[0], 8, 8, 4])
    y = tf.nn.conv2d_transpose(x, tf.constant(normal((2, 2, 4, 3), 1)), size, 2, "SAME", name="transposed")
    tf.nn.relu(batch_norm(tf.nn.bias_add(y, normal((4,), 2)), 4, "bn"), name="out")


# How convolutions are written


@form("ExpandDims Conv2D BiasAdd Squeeze Relu ExpandDims Conv2D BiasAdd Squeeze", inputs={"x": (2, 12, 3)})
def convolutions_of_series():
    y = tf.nn.conv1d(placeholder(None, 12, 3), normal((3, 3, 4), 1), 1, "SAME", name="first")
    y = tf.nn.relu(small_ops(tf.nn.bias_add(y, normal((4,), 2)), 3))
    tf.nn.bias_add(tf.nn.conv1d(y, normal((3, 4, 4), 4), 1, "SAME", name="second"), normal((4,), 5), name="out")


@form(
    "SpaceToBatchND Conv2D BiasAdd BatchToSpaceND Relu "
    "SpaceToBatchND DepthwiseConv2dNative BiasAdd BatchToSpaceND Identity"
)
def dilated_convolutions():
    y = tf.space_to_batch(placeholder(), [2, 2], [[2, 2], [2, 2]])
    y = tf.batch_to_space(conv(y, 4, 1, padding="VALID"), [2, 2], [[0, 0], [0, 0]])
    y = tf.nn.relu(batch_norm(tf.nn.bias_add(y, normal((4,), 2)), 4, "bn"))
    tf.identity(small_ops(depthwise(y, 3, dilations=[2, 2]), 4), name="out")


@form("Split Conv2D BiasAdd Conv2D BiasAdd ConcatV2 Relu", inputs={"x": (2, 8, 8, 4)})
def a_convolution_in_groups_by_split_and_concatenation():
    weights = tf.split(tf.constant(normal((3, 3, 2, 6), 1, 0.4)), 2, 3)
    parts = tf.split(placeholder(None, 8, 8, 4), 2, 3)
    layers = [
        tf.nn.conv2d(*each, 1, "SAME", name=f"group{index}")
        for index, each in enumerate(zip(parts, weights, strict=True))
    ]
    tf.nn.relu(batch_norm(tf.nn.bias_add(tf.concat(layers, 3), normal((6,), 2)), 6, "bn"), name="out")


@form("Conv2D Snapshot BiasAdd Relu DepthwiseConv2dNative BiasAdd", inputs={"x": (2, 8, 8, 4)})
def convolutions_in_groups():
    y = tf.nn.conv2d(placeholder(None, 8, 8, 4), normal((3, 3, 2, 6), 1, 0.4), 1, "SAME", name="two_groups")
    y = tf.nn.relu(small_ops(y, 2))
    y = tf.nn.conv2d(y, normal((3, 3, 1, 6), 3), 1, "SAME", name="six_groups")
    tf.add(y, normal((1, 6), 4), name="out")


@form("Conv2D BiasAdd Relu Conv2D BiasAdd Relu Mean MatMul Identity", inputs={"x": (2, 3, 8, 8)}, options=nchw_on_cpu)
def channels_first():
    y = tf.nn.bias_add(conv(placeholder(None, 3, 8, 8), 4, 1, data_format="NCHW"), normal((4,), 2), "NCHW")
    y = tf.nn.relu(batch_norm(y, 4, "bn", data_format="NCHW"))
    y = conv(y, 4, 3, data_format="NCHW") * normal((4, 1, 1), 4) + normal((1, 4, 1, 1), 5)
    tf.identity(dense(tf.reduce_mean(tf.nn.relu(y), [2, 3]), 3, 6), name="out")


@form("Transpose Conv2D BiasAdd Transpose Relu Transpose Conv2D Transpose", inputs={"x": (2, 3, 8, 8)})
def transposed_around_each_layer():
    """As converters from frameworks with channels first write it."""
    y = conv(tf.transpose(placeholder(None, 3, 8, 8), [0, 2, 3, 1]), 4, 1)
    y = tf.transpose(y, [0, 3, 1, 2]) * normal((4, 1, 1), 2) + normal((4, 1, 1), 3)
    y = conv(tf.transpose(tf.nn.relu(y), [0, 2, 3, 1]), 4, 4)
    tf.transpose(y, [0, 3, 1, 2], name="out")


# Functions, loops, and what else stands around layers


@form("Conv2D BiasAdd Relu Conv2D BiasAdd Relu Conv2D Identity")
def functions():
    """A function in a function, called twice, one with weights of its own, one that is compiled."""
    inner = tf.function(lambda v, w: tf.nn.conv2d(v, w, 1, "SAME", name="conv"), autograph=False, jit_compile=True)

    @tf.function(autograph=False)
    def block(v, w, *given):
        return tf.nn.relu(small_ops(inner(v, w), 0, given))

    last = tf.function(lambda v: conv(v, 2, 5), autograph=False)
    y = block(placeholder(), tf.constant(normal((3, 3, 3, 4), 1)), *statistics(4, 2))
    y = block(y, tf.constant(normal((3, 3, 4, 4), 3)), *statistics(4, 4))
    tf.identity(last(y), name="out")


@form(None, inputs={"x": (2, 3, 4)})
def a_recurrent_network_between_layers():
    x = placeholder(None, 3, 4)
    y = tf.transpose(tf.nn.relu(dense(x, 4, 1) + normal((4,), 2)), [1, 0, 2])
    steps = tf.TensorArray(tf.float32, 3).unstack(y)

    def body(i, h):
        return i + 1, tf.tanh(dense(tf.concat([steps.read(i), h], 1), 4, 3))

    state, shapes = [0, tf.zeros([tf.shape(x)[0], 4])], [tf.TensorShape([]), tf.TensorShape([None, 4])]
    _, y = tf1.while_loop(lambda i, _: i < 3, body, state, shapes)
    tf.identity(small_ops(dense(y, 3, 5), 6), name="out")


@form("Conv2D BiasAdd Relu")
def checks_and_what_waits_for_them():
    x = placeholder()
    with tf.control_dependencies([tf1.Assert(tf.reduce_all(tf.math.is_finite(x)), [x]), tf.no_op()]):
        y = tf.identity(conv(x, 4, 1))
    with tf.control_dependencies([tf.raw_ops.Assert(condition=tf.equal(tf.shape(y)[3], 4), data=["channels"])]):
        y = tf.identity(y)
    tf.nn.relu(small_ops(y, 2), name="out")


@form("Conv2D BiasAdd Relu Identity")
def an_output_that_waits_for_the_weights():
    """As Keras writes it."""
    weights = tf.identity(tf.constant(normal((3, 3, 3, 4), 1), name="resource"), name="weights")
    y = tf.nn.relu(small_ops(tf.nn.conv2d(placeholder(), weights, 1, "SAME", name="conv"), 2))
    with tf.control_dependencies([weights]):
        everything = tf.no_op()
    with tf.control_dependencies([everything]):
        tf.identity(y, name="out")


def stored_in_half_precision(make):
    """Replaces the float32 constants of a graph by float16 ones with a Cast behind."""
    graph_def = build(make)
    result = tf1.GraphDef(versions=graph_def.versions)
    for node in graph_def.node:
        value = tf.make_ndarray(node.attr["value"].tensor) if node.op == "Const" else np.array(0)
        if value.dtype == np.float32 and value.size > 1:
            half = make_const(f"{node.name}/half", value.astype(np.float16))
            read = make_node(f"{node.name}/read", "Identity", [half.name], T=tf.float16)
            cast = make_node(node.name, "Cast", [read.name], SrcT=tf.float16, DstT=tf.float32)
            result.node.extend([half, read, cast])
        else:
            result.node.append(node)
    return result


@form("Conv2D BiasAdd Relu Mean MatMul Identity", graph_def=stored_in_half_precision)
def weights_in_half_precision():
    y = tf.nn.relu(batch_norm(conv(placeholder(), 4, 1), 4, "bn"))
    tf.identity(dense(tf.reduce_mean(y, [1, 2]), 3, 2), name="out")


@form(
    "Conv2D BiasAdd Relu MatMul BiasAdd Sigmoid Reshape Mul Conv2D BiasAdd Mean MatMul BiasAdd",
    inputs={**IMAGES, "numbers": (2, 5)},
    outputs=("product", "bn2/add_1", "out"),
)
def several_inputs_and_outputs():
    """One output is a value in the middle, one the last node of a batch normalization."""
    y = tf.nn.relu(tf.nn.bias_add(conv(placeholder(), 4, 1), normal((4,), 2)))
    gate = tf.sigmoid(tf.nn.bias_add(dense(placeholder(None, 5, name="numbers"), 4, 3), normal((4,), 4)))
    y = tf.multiply(y, tf.reshape(gate, [-1, 1, 1, 4]), name="product")
    small_ops(conv(y, 4, 5), 2)
    tf.add(dense(tf.reduce_mean(y, [1, 2]), 3, 6), normal((3,), 7), name="out")


@form("Conv2D BiasAdd Relu Reshape MatMul Identity", inputs={"x": (1, 8, 8, 3)})
def a_fixed_number_of_images():
    y = tf.nn.relu(small_ops(conv(placeholder(1, 8, 8, 3), 4, 1), 2))
    tf.identity(dense(tf.reshape(y, [1, 256]), 3, 3), name="out")


def frozen_by_keras(make):
    """Freezes the Keras model that a function returns, as docs/guide/own_model.md shows."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    from tensorflow.python.framework.convert_to_constants import (  # noqa: PLC0415
        convert_variables_to_constants_v2,
    )

    model = make()
    generator = rng(0)
    for weight in model.weights:
        weight.assign(
            generator.uniform(0.3, 1.0, weight.shape)
            * generator.choice([-1, 1, 1], weight.shape) ** ("variance" not in weight.path)
        )
    call = tf.function(lambda x: model(x, training=False))
    spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="x")
    return convert_variables_to_constants_v2(call.get_concrete_function(spec)).graph.as_graph_def()


@form(
    "Conv2D BiasAdd Relu6 DepthwiseConv2dNative BiasAdd Relu6 Mean MatMul BiasAdd Softmax Identity",
    outputs=("Identity",),
    graph_def=frozen_by_keras,
)
def keras():
    import keras  # noqa: PLC0415 - it takes its time

    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input([8, 8, 3]),
            layers.Conv2D(4, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.BatchNormalization(scale=False),
            layers.ReLU(6.0),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
            layers.BatchNormalization(center=False),
            layers.Softmax(),
        ]
    )


@form("Conv2D Snapshot BiasAdd Relu Conv2D BiasAdd Identity", outputs=("Identity",), inputs={"x": (2, 8, 8, 4)},
      graph_def=frozen_by_keras)  # fmt: skip
def keras_convolution_in_groups():
    """Keras puts it into a function."""
    import keras  # noqa: PLC0415

    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input([8, 8, 4]),
            layers.Conv2D(8, 3, padding="same", groups=2),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(3, 1),
        ]
    )


def quantize_form(form, skip_layers=None):
    """Takes a form through the public steps; returns the float graph, the quantized one, and the node map."""
    graph_def = form.graph_def()
    model = save(graph_def, Path("float.pb"))
    graph = import_graph(graph_def, "test")
    amct.create_quant_config("config.json", graph, skip_layers)
    amct.quantize_model(graph, "config.json", "record.txt", list(form.outputs))
    with graph.as_default():  # see ``run``
        fetched = [tf.identity(graph.get_tensor_by_name(f"{name}:0")) for name in form.outputs]
    with tf1.Session(graph=graph, config=form.options()) as session:
        session.run(fetched, {f"{name}:0": value for name, value in form.feeds().items()})
    amct.save_model(model, list(form.outputs), "record.txt", "results/net")
    quantized = tf1.GraphDef.FromString(Path("results/net_quantized.pb").read_bytes())
    (graph,) = json.loads(Path("results/net_quant.json").read_text())["graph"]
    return graph_def, quantized, graph["op"]
