"""What the integer kernels compute is what the simulation computes; where they cannot, the simulation stays."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from graphs import batch_norm, normal, ops_of, tf1
from grids import grid
from integer_models import Integers, bottlenecks, images

from amct_tensorflow.quantize.algorithms.scales import arq_scales
from amct_tensorflow.quantize.calibration.settling import settle_steps
from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.quantize.record.factors import LayerCorrection, LayerFactors
from amct_tensorflow.search.integers import integer_execution
from amct_tensorflow.search.integers.availability import why_no_integer_kernels
from amct_tensorflow.search.integers.integer_execution import IntegerExecution

pytestmark = pytest.mark.skipif(why_no_integer_kernels() is not None, reason=f"{why_no_integer_kernels()}")

CONVOLUTION, DEPTHWISE = "_FusedQuantizedConv2D", "_FusedQuantizedDepthwiseConv2D"
OFFSETS = (-128, -77, 0, 127)


def yielding_bytes(graph_def):
    """Returns how many kernels yield bytes, and not sums."""
    return sum(b"Requantize" in node.attr["fused_ops"].list.s for node in graph_def.node)


def said(messages):
    return "\n".join(messages)


@grid(
    offset=OFFSETS,
    size=[1, 3],
    stride__padding=[
        (1, "SAME"),
        (2, "SAME"),
        (2, "VALID"),
        (1, [[0, 0], [1, 2], [0, 1], [0, 0]]),
        (2, [[0, 0]] * 4),
    ],
    dilation=[1, 2],
)
def test_convolutions(offset, size, stride, padding, dilation):
    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 9, 5], name="x")
        weights = normal((size, size, 5, 6), 1, 0.3)
        y = tf.nn.conv2d(x, weights, stride, padding, dilations=dilation if stride == 1 else 1, name="layer")
        tf.nn.bias_add(y, normal((6,), 2, 3.0), name="out")

    assert CONVOLUTION in Integers(make, images(2, 8, 9, 5), offset=offset).check()


@pytest.mark.parametrize("shape", [(8, 8, 9, 5), (None, 8, 9, 5)])
def test_a_model_of_so_many_images_and_no_others_is_checked_on_a_whole_batch(messages, shape):
    """Its input says how many there are, or a Reshape does."""

    def make():
        x = tf1.placeholder(tf.float32, shape, name="x")
        y = tf.nn.conv2d(x, normal((3, 3, 5, 6), 1, 0.3), 1, "SAME", name="layer")
        tf.reshape(tf.nn.bias_add(y, normal((6,), 2, 3.0)), [8, 72, 6], name="out")

    integers = Integers(make, images(8, 8, 9, 5))
    assert integers.execution.model_of(integers.quantized) is not None
    assert "but for 0 of 1 layers" in said(messages)


@grid(offset=OFFSETS, height=[1, 3, 5], width=[1, 2], size=[(3, 2), (1, 2), (3, 3)], dilation=[2, 3])
def test_filters_with_gaps_that_meet_nothing_but_padding(offset, height, width, size, dilation):
    def make():
        x = tf1.placeholder(tf.float32, [None, height, width, 4], name="x")
        y = tf.nn.conv2d(x, normal((*size, 4, 8), 1, 0.3), 1, "SAME", dilations=dilation, name="layer")
        tf.nn.bias_add(y, normal((8,), 2, 3.0), name="out")

    assert CONVOLUTION in Integers(make, images(2, height, width, 4), offset=offset).check()


@grid(offset=OFFSETS, channels=[1, 2], outputs=[1, 16], size__stride=[((2, 7), 2), ((3, 3), 3)])
def test_filters_that_meet_padding_beside_their_data_and_none_above_or_below(offset, channels, outputs, size, stride):
    def make():
        x = tf1.placeholder(tf.float32, [None, 12, 13, channels], name="x")
        y = tf.nn.conv2d(x, normal((*size, channels, outputs), 1, 0.3), stride, "SAME", name="layer")
        tf.nn.bias_add(y, normal((outputs,), 2, 3.0), name="out")

    assert CONVOLUTION in Integers(make, images(2, 12, 13, channels), offset=offset).check()


@grid(offset=OFFSETS, stride__padding=[(1, "SAME"), (2, "SAME"), (2, "VALID")])
def test_depthwise_convolutions(offset, stride, padding):
    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 4], name="x")
        y = tf.nn.depthwise_conv2d(x, normal((3, 3, 4, 1), 4), [1, stride, stride, 1], padding, name="layer")
        tf.identity(batch_norm(y, 4, "bn", 5), name="out")

    assert DEPTHWISE in Integers(make, images(2, 8, 8, 4), offset=offset).check()


@pytest.mark.parametrize("offset", OFFSETS)
def test_products_of_matrices(offset):
    def make():
        x = tf1.placeholder(tf.float32, [None, 33], name="x")
        tf.nn.bias_add(tf.matmul(x, normal((33, 10), 10), name="layer"), normal((10,), 11), name="out")

    assert CONVOLUTION in Integers(make, images(5, 33), offset=offset).check()


@pytest.mark.parametrize("scale", [6 / 255, 0.04])
def test_sums_become_bytes_in_one_pass_between_layers_with_relu6(scale):
    """Where a quantizer clips to no more than 6, it limits; where it reaches further, bytes are limited besides."""
    integers = Integers(bottlenecks, images(4, 8, 8, 6), offset=-9, scale=scale)
    ops = integers.check()
    assert yielding_bytes(integers.graph_def) == 4 and ops.count("Relu6") == 0
    assert ops.count("AscendQuant") == ops.count("AscendDequant") == 3  # the two residual paths, and the classes
    assert ops.count("Minimum") == (4 if scale == 0.04 else 0)


@pytest.mark.parametrize(
    ("clips", "limits"),
    [
        ((tf.nn.relu, lambda y, name: tf.minimum(y, 4.0, name=name)), {"Minimum": 100}),
        ((lambda y, name: tf.maximum(y, -1.0, name=name),), {}),
        ((lambda y, name: tf.minimum(y, 4.0, name=name), tf.nn.relu6), {"Minimum": 100}),
        ((lambda y, name: tf.clip_by_value(y, 0.6, 4.0, name=name),), {"Minimum": 100, "Maximum": 15}),
        ((tf.nn.relu, lambda y, name: tf.minimum(y, 20.0, name=name)), {}),
    ],
)
def test_bytes_are_limited_as_the_clips_between_layers_limit_values(clips, limits):
    """The quantizer behind them reaches 10.2, and starts at 0."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 6, 6, 5], name="x")
        y = tf.nn.conv2d(x, normal((3, 3, 5, 8), 1, 0.3), 1, "SAME", name="one")
        for index, clip in enumerate(clips):
            y = clip(y, name=f"relu{index}")
        tf.identity(tf.nn.conv2d(y, normal((3, 3, 8, 4), 2, 0.3), 1, "SAME", name="two"), name="out")

    integers = Integers(make, images(3, 6, 6, 5), scale=0.04)
    ops = integers.check()
    assert yielding_bytes(integers.graph_def) == ops.count("AscendQuant") == 1
    nodes = {node.name: node for node in integers.graph_def.node}
    found = {
        node.op: int(tf1.make_ndarray(nodes[node.input[1]].attr["value"].tensor))
        for node in nodes.values()
        if node.op in ("Minimum", "Maximum")
    }
    assert found == limits


def two_layers(channels=64, bias=0.0):
    def make():
        x = tf1.placeholder(tf.float32, [None, 16, 16, 8], name="x")
        y = tf.nn.conv2d(x, normal((1, 1, 8, channels), 1, 0.3), 1, "SAME", name="one")
        y = tf.nn.relu6(tf.nn.bias_add(y, np.full(channels, bias, np.float32)), name="relu")
        tf.identity(tf.nn.conv2d(y, normal((1, 1, channels, 4), 2, 0.3), 1, "SAME", name="two"), name="out")

    return make


@pytest.mark.parametrize("scale", [0.0235, 0.04])
def test_many_channels_are_the_same_to_the_bit_where_steps_are_settled(scale):
    """Of 3,000 random steps some hundred round a sum to another byte."""
    integers = Integers(two_layers(3000), images(2, 16, 16, 8), scale=scale)
    integers.check()
    assert yielding_bytes(integers.graph_def) == 1
    unsettled = QuantizationPlan(integers.plan.fused, integers.asked, {}, integers.outputs)
    quantized = quantize_graph(unsettled)
    graph_def = tf1.GraphDef.FromString(integers.execution.model_of(quantized))
    assert yielding_bytes(graph_def) == 0 and CONVOLUTION in ops_of(graph_def)
    integers.compare(graph_def, integers.feeds, quantized)


@pytest.mark.parametrize("offset", [-128, -90, -3, 100])
@pytest.mark.parametrize("clip", [lambda y, name: y, lambda y, name: tf.clip_by_value(y, -0.6, 0.9, name=name)])
def test_bytes_with_any_zero_point(offset, clip):
    """The layer between reads them with a padding of zero points."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 6], name="x")
        y = tf.nn.bias_add(tf.nn.conv2d(x, normal((1, 1, 6, 32), 1, 0.3), 1, "SAME", name="one"), normal((32,), 4))
        y = tf.nn.conv2d(clip(y, "clip_1"), normal((3, 3, 32, 8), 2, 0.1), 1, "SAME", name="two")
        y = clip(tf.nn.bias_add(y, normal((8,), 5)), "clip_2")
        tf.identity(tf.nn.depthwise_conv2d(y, normal((3, 3, 8, 1), 3), [1] * 4, "SAME", name="three"), name="out")

    integers = Integers(make, images(4, 8, 8, 6), offset=offset)
    integers.check()
    assert yielding_bytes(integers.graph_def) == 2


def test_an_output_behind_a_layer_that_yields_bytes():
    """Whoever reads its quantizer gets what that would yield."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 6, 6, 5], name="x")
        y = tf.nn.conv2d(x, normal((3, 3, 5, 8), 1, 0.3), 1, "SAME", name="one")
        left = tf.nn.conv2d(y, normal((3, 3, 8, 4), 2, 0.3), 1, "SAME", name="left")
        right = tf.nn.depthwise_conv2d(y, normal((3, 3, 8, 2), 3, 0.3), [1] * 4, "SAME", name="right")
        tf.concat([left, right], -1, name="out")

    integers = Integers(make, images(3, 6, 6, 5), offset=-20)
    assert integers.simulated == {"right": "its channels have several filters each"}
    integers.check()
    assert yielding_bytes(integers.graph_def) == 1


def test_one_step_for_all_channels_is_left_as_it_is():
    """No step makes the bytes of many channels right at once; sums become floats then."""
    fused, factors = (Integers(two_layers(), images(2, 16, 16, 8)).plan.fused, {})
    for name, layer in fused.layers.items():
        (scale,) = arq_scales("layer", layer.op_type, layer.weights, False).tolist()
        factors[name] = LayerFactors(0.024, -128, (scale,))
    assert settle_steps(fused, factors, {}) == factors


def test_steps_are_settled_by_the_corrected_bias():
    integers = Integers(two_layers(1000), images(2, 16, 16, 8))
    corrections = {"one": LayerCorrection(normal((1000,), 7, 0.01))}
    settled = settle_steps(integers.plan.fused, integers.asked, corrections)
    assert settled["one"] not in (integers.asked["one"], integers.plan.factors["one"])
    for factors, number in ((settled, 1), (integers.plan.factors, 0)):
        quantized = quantize_graph(replace(integers.plan, factors=factors, corrections=corrections))
        graph_def = tf1.GraphDef.FromString(integers.execution.model_of(quantized))
        assert yielding_bytes(graph_def) == number
        integers.compare(graph_def, integers.feeds, quantized)


def test_steps_stay_where_something_else_reads_the_layer():
    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 6], name="x")
        y = tf.nn.conv2d(x, normal((1, 1, 6, 200), 1, 0.3), 1, "SAME", name="one")
        tf.add(y, tf.nn.conv2d(y, normal((1, 1, 200, 200), 2, 0.1), 1, "SAME", name="two"), name="out")

    integers = Integers(make, images(2, 8, 8, 6))
    assert integers.plan.factors == integers.asked
    integers.check()
    assert yielding_bytes(integers.graph_def) == 0


def test_a_quantizer_that_two_layers_do_not_share_is_one_reader_too_many():
    def make():
        x = tf1.placeholder(tf.float32, [None, 6, 6, 5], name="x")
        y = tf.nn.relu(tf.nn.conv2d(x, normal((3, 3, 5, 8), 1, 0.3), 1, "SAME", name="one"), name="relu")
        left, right = (tf.nn.conv2d(y, normal((3, 3, 8, 4), seed, 0.3), 1, "SAME") for seed in (2, 3))
        tf.add(left, right, name="out")

    integers = Integers(make, images(3, 6, 6, 5), scale=6 / 255)
    assert integers.check().count(CONVOLUTION) == 3
    assert yielding_bytes(integers.graph_def) == 1  # one quantizer serves both


@pytest.mark.parametrize(
    ("inputs", "signs", "stays"), [(518, 1, False), (519, 1, True), (1030, -1, False), (1040, -1, True)]
)
def test_products_of_one_sign_alone_count(inputs, signs, stays):
    """Of data from 0 to 255 and weights of 127 on one side and -127 on the other: 2**24 is 518.06 products."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 2, 2, inputs], name="x")
        weights = np.ones((1, 1, inputs, 3), np.float32)
        weights[:, :, ::2] *= signs
        tf.identity(tf.nn.conv2d(x, weights, 1, "SAME", name="layer"), name="out")

    integers = Integers(make, images(2, 2, 2, inputs))
    assert bool(integers.simulated) == stays
    integers.check()


def test_sums_beyond_24_bits_stay_in_simulation():
    integers = Integers(two_layers(bias=4000.0), images(2, 16, 16, 8))
    assert integers.simulated == {"one": "its sums may exceed 24 bits, which float32 holds"}
    integers.check()


@pytest.mark.parametrize("scale", [6 / 255, 0.04])
def test_outputs_inside_keep_their_name_and_value(scale):
    outputs = ["relu_a0", "add0", "project1", "out"]
    integers = Integers(bottlenecks, images(4, 8, 8, 6), outputs, offset=-9, scale=scale)
    integers.check()
    assert set(outputs) <= {node.name for node in integers.graph_def.node}


def test_another_number_of_images():
    integers = Integers(bottlenecks, images(4, 8, 8, 6), offset=-9)
    integers.compare(integers.graph_def, {"x": images(4, 8, 8, 6)[:1]})


def test_a_size_that_only_a_run_tells():
    def make():
        x = tf1.placeholder(tf.float32, [None, None, None, 5], name="x")
        y = tf.nn.relu(tf.nn.conv2d(x, normal((3, 3, 5, 6), 1, 0.3), 1, "SAME", name="layer"), name="relu")
        y = tf.nn.relu(tf.nn.conv2d(y, normal((3, 3, 6, 6), 2, 0.3), 2, "SAME", name="strides"), name="relu_2")
        y = tf.nn.conv2d(y, normal((1, 1, 6, 6), 2, 0.3), 1, "SAME", name="point")
        tf.nn.conv2d(tf.tanh(y), normal((3, 3, 6, 6), 2, 0.3), 2, "SAME", name="unknown")
        tf.identity(tf1.get_default_graph().get_tensor_by_name("unknown:0"), name="out")

    integers = Integers(make, images(2, 7, 9, 5), offset=5)
    integers.check()
    assert set(integers.layers) == {"layer", "strides", "point"}
    assert integers.simulated == {"unknown": "how much is padded depends on a size that only a run tells"}


def rows():
    x = tf1.placeholder(tf.float32, [None, 8], name="x")
    y = tf.nn.relu(tf.matmul(x, normal((8, 16), 1, 0.3), name="one"), name="relu")
    tf.identity(tf.matmul(y, normal((16, 4), 2, 0.3), name="two"), name="out")


def test_no_rows_as_where_nothing_is_detected():
    """Bytes of no rows would have another number of columns."""
    integers = Integers(rows, images(4, 8))
    integers.check()
    assert yielding_bytes(integers.graph_def) == 0
    integers.compare(integers.graph_def, {"x": images(0, 8)})


def pointwise(addend, pooled=False):
    """A pointwise layer with a tensor of its own input added, or a constant; the layer may see the mean of images."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 4, 5, 6], name="x")
        data = tf.reduce_mean(x, 0, keepdims=True) if pooled else x
        y = tf.nn.conv2d(data, normal((1, 1, 6, 6), 1, 0.4), 1, "SAME", name="layer")
        y = tf.nn.bias_add(y, normal((6,), 2))
        tf.nn.relu(y + addend(x), name="out")

    return make


def constant(*shape):
    return lambda _x: normal(shape, 4)


@grid(
    number=[1, 2, 3, 17],
    offset=[-128, 3],
    addend__pooled=[
        *((constant(*shape), False) for shape in [(1, 4, 5, 6), (4, 5, 6), (5, 6), (1, 1, 1, 6), (4, 1, 1), (1,), ()]),
        (lambda x: tf.reduce_mean(x, 0, keepdims=True), False),
        (lambda x: tf.tanh(x[:1]), False),
        (tf.tanh, True),
        (lambda x: tf.tanh(x[:1]), True),
        (tf.identity, False),
    ],
)
def test_what_is_added_to_a_layer_is_repeated_as_in_the_simulation(number, offset, addend, pooled):
    """The kernel adds tensors of one shape; it would read beyond the end of a shorter one."""
    Integers(pointwise(addend, pooled), images(number, 4, 5, 6), offset=offset).check()


def test_inputs_that_are_fed_with_different_numbers_of_images():
    def make():
        x, other = (tf1.placeholder(tf.float32, [None, 4, 5, 6], name=name) for name in ("x", "other"))
        y = tf.nn.conv2d(x, normal((1, 1, 6, 6), 1, 0.4), 1, "SAME", name="layer")
        tf.add(y, other, name="out")

    integers = Integers(make, images(3, 4, 5, 6))
    integers.compare(integers.graph_def, {"x": images(3, 4, 5, 6), "other": images(1, 4, 5, 6)})


def products_with(addend):
    def make():
        x = tf1.placeholder(tf.float32, [None, 8], name="x")
        tf.add(addend(x), tf.matmul(x, normal((8, 6), 1), name="layer"), name="out")

    return make


@pytest.mark.parametrize("number", [1, 2, 17])
@pytest.mark.parametrize("addend", [constant(1, 6), constant(6), constant(1, 1), lambda x: tf.tanh(x[:1, :6])])
def test_what_is_added_to_a_product_of_matrices(number, addend):
    Integers(products_with(addend), images(number, 8)).check()


def gated(x):
    """As networks with squeeze and excitation, and with hard swish, put it between layers."""
    x = x * tf.nn.relu6(x + 3.0) * np.float32(1 / 6)
    return x * tf.sigmoid(tf.reduce_mean(x, [1, 2], keepdims=True))


def in_groups(x):
    return tf.nn.conv2d(x, normal((3, 3, 2, 4), 1), 1, "SAME", name="layer")


def several_filters(x):
    return tf.nn.depthwise_conv2d(x, normal((3, 3, 4, 2), 1), [1] * 4, "SAME", name="layer")


def pooling(x):
    return tf.nn.avg_pool2d(x, 2, 2, "SAME", name="layer")


def transposed(x):
    return tf.nn.conv2d_transpose(x, normal((3, 3, 4, 4), 1), [2, 16, 16, 4], 2, "SAME", name="layer")


@pytest.mark.parametrize(
    ("make_layer", "reason"),
    [
        (in_groups, "it convolves in groups"),
        (several_filters, "its channels have several filters each"),
        (pooling, "there is no integer kernel for AvgPool"),
        (transposed, "there is no integer kernel for Conv2DBackpropInput"),
    ],
)
def test_what_stays_in_simulation(make_layer, reason, messages):
    def make():
        x = tf1.placeholder(tf.float32, [2, 8, 8, 4], name="x")
        y = make_layer(tf.nn.relu(tf.nn.conv2d(x, normal((1, 1, 4, 4), 2), 1, "SAME", name="first"), name="relu"))
        tf.identity(y, name="out")

    integers = Integers(make, images(2, 8, 8, 4))
    assert integers.simulated == {"layer": reason} and list(integers.layers) == ["first"]
    integers.check()
    assert integers.execution.model_of(integers.quantized) is not None
    assert f"Simulated all the same: 1, as {reason}." in said(messages)


def test_depthwise_filters_with_gaps_stay_in_simulation():
    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 4], name="x")
        gaps = {"strides": [1] * 4, "padding": "SAME", "dilations": [1, 2, 2, 1]}
        tf.raw_ops.DepthwiseConv2dNative(input=x, filter=normal((3, 3, 4, 1), 1), name="out", **gaps)

    assert Integers(make, images(2, 8, 8, 4)).simulated == {"out/quantized": "its filters have gaps"}


def test_a_depthwise_layer_between_floats_is_simulated(messages):
    """Casts to bytes and from sums take more time than its few products; one that yields bytes is worth it."""

    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 4], name="x")
        depthwise = [1] * 4, "SAME"
        y = tf.tanh(tf.nn.depthwise_conv2d(x, normal((3, 3, 4, 1), 1, 0.3), *depthwise, name="between"))
        y = tf.nn.relu(tf.nn.depthwise_conv2d(y, normal((3, 3, 4, 1), 2, 0.3), *depthwise, name="before"), name="relu")
        tf.identity(tf.nn.conv2d(y, normal((1, 1, 4, 4), 3, 0.3), 1, "SAME", name="behind"), name="out")

    integers = Integers(make, images(2, 8, 8, 4))
    assert set(integers.layers) == {"between", "before", "behind"}
    model = tf1.GraphDef.FromString(integers.execution.model_of(integers.quantized))
    assert [ops_of(model).count(op) for op in (DEPTHWISE, "DepthwiseConv2dNative")] == [1, 1]
    assert yielding_bytes(model) == 1
    integers.compare(model, integers.feeds)
    assert "Simulated all the same: 1, as its few products take less time than casts would." in said(messages)


def test_a_model_whose_results_differ_is_simulated(monkeypatch, messages):
    """As on a processor whose products of bytes overflow."""
    honest = integer_execution.find_kernel_layers

    def dishonest(view, outputs):
        layers, simulated = honest(view, outputs)
        right = layers["project0"]
        wrong = replace(right, sums=replace(right.sums, added=right.sums.added + 1000))
        return {**layers, "project0": wrong}, simulated

    monkeypatch.setattr(integer_execution, "find_kernel_layers", dishonest)
    integers = Integers(bottlenecks, images(4, 8, 8, 6), offset=-9)
    assert integers.execution.model_of(integers.quantized) is None
    assert "of the outputs would differ" in said(messages)
    monkeypatch.undo()
    assert integers.execution.model_of(integers.quantized) is None  # it is not asked again


def test_the_same_bytes_whenever_it_is_made():
    models = {
        Integers(bottlenecks, images(4, 8, 8, 6)).execution.model_of(
            Integers(bottlenecks, images(4, 8, 8, 6)).quantized
        )
        for _ in range(2)
    }
    assert len(models) == 1 and None not in models


def test_candidates_with_layers_in_float():
    integers = Integers(bottlenecks, images(4, 8, 8, 6), offset=-9)
    plan = integers.plan.restrict({"depthwise1": False, "expand0": False})
    quantized = quantize_graph(plan)
    model = tf1.GraphDef.FromString(integers.execution.model_of(quantized))
    assert ops_of(model).count("DepthwiseConv2dNative") == 1 and ops_of(model).count(DEPTHWISE) == 1
    integers.compare(model, integers.feeds, quantized)
    nothing = quantize_graph(integers.plan.restrict(dict.fromkeys(integers.plan.factors, False)))
    assert integers.execution.model_of(nothing) is None


def test_images_that_begin_behind_a_clip_that_a_quantizer_repeats():
    """Calibration keeps what the first quantized layers read; the quantized model has no such node then."""
    integers = Integers(two_layers(), images(2, 16, 16, 8), scale=6 / 255)
    quantized = quantize_graph(integers.plan.restrict({"one": False}))
    assert "relu" not in {node.name for node in quantized.graph_def.node}
    execution = IntegerExecution(integers.outputs, [{"relu:0": np.abs(images(2, 16, 16, 64))}])
    assert execution.model_of(quantized) is not None


def test_a_balanced_model():
    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 6], name="x")
        y = tf.nn.relu(tf.nn.conv2d(x, normal((3, 3, 6, 4), 1, 0.3), 1, "SAME", name="one"), name="relu")
        y = tf.nn.conv2d(y, normal((3, 3, 4, 5), 2, 0.3), 1, "SAME", name="two")
        tf.identity(tf.nn.conv2d(y, normal((1, 1, 5, 3), 3, 0.3), 1, "SAME", name="three"), name="out")

    balance = {"two": (1.5, 0.5, 2.0, 1.0), "three": (0.7, 1.0, 1.1, 2.0, 0.5)}
    integers = Integers(make, images(2, 8, 8, 6), balance=balance)
    assert integers.layers.keys() == {"one", "two", "three"}
    integers.check()


def test_a_layer_behind_one_that_a_fold_gave_a_bias():
    def make():
        x = tf1.placeholder(tf.float32, [None, 8, 8, 4], name="x")
        y = tf.nn.depthwise_conv2d((x - 1.0) / 2.0, normal((3, 3, 4, 1), 1), [1] * 4, "VALID", name="one")
        tf.identity(tf.nn.conv2d(y, normal((1, 1, 4, 5), 2, 0.3), 1, "SAME", name="two"), name="out")

    integers = Integers(make, images(2, 8, 8, 4))
    assert integers.layers.keys() == {"one", "two"}
    integers.check()


def test_without_batches_nothing_is_trusted(messages):
    integers = Integers(bottlenecks, images(4, 8, 8, 6))
    assert IntegerExecution(["out"], []).model_of(integers.quantized) is None
    assert "Quantized models are simulated: no calibration batch was kept" in said(messages)


def test_batches_that_the_model_does_not_take(messages):
    integers = Integers(bottlenecks, images(4, 8, 8, 6))
    assert IntegerExecution(["out"], [{"other:0": images(1, 2)}]).model_of(integers.quantized) is None
    assert "Quantized models are simulated: " in said(messages)
