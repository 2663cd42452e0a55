"""What TensorFlow Lite computes of a quantized model is what the simulation computes, to the bit."""

import numpy as np
import pytest
import tensorflow as tf
from graphs import batch_norm, normal, run, tf1
from grids import grid
from integer_models import Integers, bottlenecks, conv, images, places, relu

from amct_tensorflow.search.integers.availability import why_no_lite_kernels

pytestmark = pytest.mark.skipif(why_no_lite_kernels() is not None, reason=f"{why_no_lite_kernels()}")

OFFSETS = (-128, -77, 0, 127)
PADDINGS = ["SAME", "VALID", [[0, 0], [1, 2], [0, 1], [0, 0]], [[0, 0]] * 4]


def out(value):
    tf.identity(value, name="out")


def between(layer, channels=5, size=(8, 9)):
    """A layer between two pointwise ones: it reads bytes of one, and yields bytes to the other."""

    def make():
        y = conv(places((None, *size, channels)), "first", channels, 1)
        out(conv(layer(y), "last", 4, 1))

    return make


@grid(
    offset=OFFSETS,
    size=[1, 3, (1, 5), (5, 1), (2, 3)],
    stride__padding=[
        *((1, padding) for padding in PADDINGS),
        *((2, padding) for padding in PADDINGS),
        (3, "SAME"),
        (3, "VALID"),
    ],
    in_bytes=[True, False],
)
def test_convolutions(offset, size, stride, padding, in_bytes):
    """In bytes, and as floats of the sums.

    XNNPACK pads wrongly where a stride is longer than a filter.
    """
    size = (size, size) if isinstance(size, int) else size

    def layer(x):
        y = tf.nn.conv2d(x, normal((*size, 5, 6), 1, 0.3), stride, padding, name="layer")
        y = tf.nn.bias_add(y, normal((6,), 2, 3.0))
        return y if in_bytes else tf.tanh(y)

    assert Integers(between(layer), images(2, 8, 9, 5), offset=offset).check_in_lite() == {"first", "layer", "last"}


@grid(offset=OFFSETS, size=[1, 3, (2, 3)], dilation=[2, (3, 1)], padding=PADDINGS, in_bytes=[True, False])
def test_filters_with_gaps(offset, size, dilation, padding, in_bytes):
    size = (size, size) if isinstance(size, int) else size

    def layer(x):
        weights = normal((*size, 5, 6), 1, 0.3)
        y = tf.nn.conv2d(x, weights, 1, padding, dilations=dilation, name="layer")
        return y if in_bytes else tf.tanh(y)

    assert "layer" in Integers(between(layer), images(2, 8, 9, 5), offset=offset).check_in_lite()


@grid(
    offset=OFFSETS,
    size=[1, 3, (1, 5), (7, 7)],
    stride__padding=[(1, "SAME"), (1, "VALID"), (2, "SAME"), (2, "VALID"), (3, "SAME")],
    channels=[1, 16],
    in_bytes=[True, False],
)
def test_depthwise_convolutions(offset, size, stride, padding, channels, in_bytes):
    size = (size, size) if isinstance(size, int) else size

    def layer(x):
        weights = normal((*size, channels, 1), 4, 0.3)
        y = tf.nn.depthwise_conv2d(x, weights, [1, stride, stride, 1], padding, name="layer")
        y = batch_norm(y, channels, "bn", 5)
        return y if in_bytes else tf.tanh(y)

    made = between(layer, channels, (11, 10))
    assert "layer" in Integers(made, images(2, 11, 10, channels), offset=offset).check_in_lite()


@grid(offset=OFFSETS, stride=[1, 2], padding=PADDINGS[2:])
def test_depthwise_convolutions_that_say_how_much_they_pad(offset, stride, padding):
    """In front of all layers: behind one, TensorFlow ends the process while it finds out shapes."""

    def make():
        weights = normal((3, 3, 6, 1), 4, 0.3)
        y = tf.nn.depthwise_conv2d(places(), weights, [1, stride, stride, 1], padding, name="layer")
        out(conv(y, "last"))

    assert Integers(make, images(2, 8, 8, 6), offset=offset).check_in_lite() == {"layer", "last"}


@pytest.mark.parametrize("offset", [-128, -9])
@pytest.mark.parametrize("scale", [6 / 255, 0.04])
def test_bottlenecks_with_shortcuts(offset, scale):
    """The first clips to what quantizers do anyway; the second leaves Relu6 between the layers."""
    integers = Integers(bottlenecks, images(4, 8, 8, 6), offset=offset, scale=scale)
    assert integers.check_in_lite() == set(integers.layers) - {"classes"}


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize(
    "clip", [tf.nn.relu, tf.nn.relu6, lambda x: tf.nn.relu6(tf.nn.relu(x)), lambda x: tf.clip_by_value(x, -0.5, 1.0)]
)
def test_clips_between_layers(offset, clip):
    """A name that holds no "relu" gives the quantizer behind the clip any zero point, so that the clip stays."""

    def make():
        y = clip(conv(places(), "one"))
        out(conv(clip(conv(y, "two") + y), "three"))

    assert Integers(make, images(3, 8, 8, 6), offset=offset, scale=0.05).check_in_lite() == {"one", "two", "three"}


def test_outputs_inside_a_part():
    """Those of layers are values, and so are those of what adds and clips; a name keeps its place."""

    def make():
        x = relu(conv(places(), "one"), "one")
        y = conv(x, "two")
        tf.nn.conv2d(relu(x + y, "sum"), normal((3, 3, 6, 4), 3, 0.3), 1, "SAME", name="out")

    outputs = ("out", "relu_one", "two_bias", "relu_sum", "one_bias")
    integers = Integers(make, images(3, 8, 8, 6), outputs, offset=-9)
    assert len(integers.check_in_lite()) == 3


def test_an_output_that_quantizers_and_others_read():
    """Simulated layers read integers; what multiplies reads values, whose factor stays one of its own.

    Where nothing else reads a dequantizer, TensorFlow multiplies both factors into one.
    """

    def make():
        x = conv(places(), "one")
        pooled = tf.nn.avg_pool2d(x, 2, 1, "SAME", name="pooled")
        scaled = tf.multiply(x, np.float32(0.37))
        out(tf.concat([conv(x, "two"), pooled, scaled], -1))

    integers = Integers(make, images(3, 8, 8, 6), offset=-7)
    assert "pooled" in integers.simulated and integers.check_in_lite() == {"one", "two"}


def test_what_alone_multiplies_a_value_behind_a_part():
    def make():
        out(tf.multiply(conv(conv(places(), "one"), "two"), np.float32(0.37)))

    assert Integers(make, images(3, 8, 8, 6), offset=-7).check_in_lite() == {"one", "two"}


def test_a_path_that_leaves_and_comes_back():
    def make():
        x = relu(conv(places(), "one"), "one")
        y = conv(tf.tanh(conv(x, "two")), "three")
        out(conv(tf.add(x, y), "four"))

    assert Integers(make, images(3, 8, 8, 6)).check_in_lite() == {"one", "two", "three", "four"}


@pytest.mark.parametrize("offset", [-128, -7])
def test_several_quantizers_with_one_step(offset):
    """TensorFlow multiplies once for them, by both factors in one. Of thousands of steps some round otherwise."""

    def make():
        x = conv(places((None, 16, 16, 8)), "one", 3000, 1)
        left, right = (conv(clip(x), name, 4, 1) for clip, name in ((tf.nn.relu, "two"), (tf.nn.relu6, "three")))
        tf.concat([left, right], -1, name="out")

    integers = Integers(make, images(2, 16, 16, 8), scale=6 / 255, offset=offset)
    assert integers.check_in_lite() == {"one", "two", "three"}


@pytest.mark.parametrize("gain", [1e-6, 1.0, 3e4])
def test_steps_of_any_size(gain):
    """XNNPACK takes none of 256 steps of a sum."""

    def make():
        x = places()
        y = tf.nn.conv2d(x, normal((3, 3, 6, 64), 1, gain), 1, "SAME", name="one")
        out(conv(y, "two"))

    assert Integers(make, images(3, 8, 8, 6), offset=-7).check_in_lite() == {"one", "two"}


@pytest.mark.parametrize(
    "in_float", [{"one"}, {"two"}, {"three"}, {"four"}, {"two", "three"}, {"one", "four"}, {"two", "four"}]
)
def test_layers_in_float_between_parts(in_float):
    """TensorFlow fuses nothing into them that it does not in the simulation, as it knows no more shapes."""

    def make():
        x = relu(conv(places(), "one", 32), "one")
        y = relu(conv(x, "two", 32) + x, "two")
        z = relu(conv(y, "three", 32, 1) + y, "three")
        out(conv(z, "four"))

    integers = Integers(make, images(3, 8, 8, 6), offset=-7, in_float=in_float)
    assert integers.check_in_lite() == {"one", "two", "three", "four"} - in_float
    execution = integers.in_lite()
    fused = [fused_ops_of(each, integers) for each in (integers.quantized.graph_def, execution.graph_def)]
    assert fused[1] <= fused[0]


def fused_ops_of(graph_def, integers):
    """Returns what TensorFlow fuses into layers as it runs a graph."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    options, found = tf1.RunOptions(output_partition_graphs=True), tf1.RunMetadata()
    feeds = {f"{name}:0": values for name, values in integers.feeds.items()}
    with tf1.Session(graph=graph) as session:
        session.run([f"{name}:0" for name in integers.outputs], feeds, options, found)
    return {tuple(node.attr["fused_ops"].list.s) for node in found.partition_graphs[0].node}


def test_sums_of_several_values():
    def make():
        x = relu(conv(places(), "one"), "one")
        y = conv(x, "two")
        z = conv(y, "three")
        out(conv(relu(conv(x, "four") + (y + z) + (z + z), "sum"), "five"))

    assert len(Integers(make, images(3, 8, 8, 6), offset=-7).check_in_lite()) == 5


def test_equal_layers_that_are_added():
    """Their values are added, and not their sums."""

    def make():
        x = relu(conv(places(), "one"), "one")
        y = conv(x, "two", seed=3)
        z = conv(relu(conv(x, "between"), "between"), "three", seed=3)
        out(conv(relu(y + z, "sum"), "four"))

    assert len(Integers(make, images(3, 8, 8, 6)).check_in_lite()) == 5


def test_values_beyond_all_bytes():
    data = images(3, 8, 8, 6)
    data[0] *= 1e30
    data[1, 0, 0, :2] = np.inf, -np.inf
    integers = Integers(bottlenecks, data, offset=-9)
    assert integers.check_in_lite()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_any_number_of_images(count):
    """Of as many channels throughout, as oneDNN confuses those of no images."""

    def make():
        x = relu(conv(places(), "one"), "one")
        out(conv(relu(conv(x, "two") + x, "two"), "three"))

    integers = Integers(make, images(4, 8, 8, 6), offset=-9)
    execution = integers.in_lite()
    integers.compare(execution.graph_def, {"x": images(count, 8, 8, 6)})


def test_images_that_the_simulation_repeats():
    """TensorFlow Lite says that it does not; the model is simulated then."""

    def make():
        x = places()
        mean = tf.reduce_mean(x, 0, keepdims=True) + 0.0 * x[:1]
        out(conv(relu(tf.add(conv(mean, "one"), conv(x, "two")), "sum"), "three"))

    integers = Integers(make, images(3, 8, 8, 6))
    execution = integers.in_lite()
    integers.compare(execution.graph_def, {"x": images(1, 8, 8, 6)})
    with pytest.raises(tf.errors.OpError, match="repeats no images"):
        run(execution.graph_def, ["out"], {"x": images(3, 8, 8, 6)})
