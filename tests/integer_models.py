"""Small quantized models, and the graphs in which they run in integers."""

from unittest.mock import patch

import numpy as np
import tensorflow as tf
from graphs import build, normal, run, tf1

from amct_tensorflow.graph.view import GraphView, static_shapes
from amct_tensorflow.model.equalization import equalize
from amct_tensorflow.model.fusion import fuse
from amct_tensorflow.model.fusion_before import fold_before
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.quantize.algorithms.scales import arq_scales
from amct_tensorflow.quantize.calibration.settling import settle_steps
from amct_tensorflow.quantize.quantized.builder import quantize_graph
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.quantize.record.factors import LayerFactors
from amct_tensorflow.search.integers import integer_execution
from amct_tensorflow.search.integers.execution_graph import execution_graph
from amct_tensorflow.search.integers.integer_execution import IntegerExecution
from amct_tensorflow.search.lite.lite_execution import lite_execution
from amct_tensorflow.search.lite.lite_region import LiteRegion, find_regions


class Integers:
    """A quantized model, and its execution graph."""

    def __init__(
        self, make, images, outputs=("out",), offset=-128, scale=0.024, images_name="x", balance=None, in_float=()
    ):
        graph_def = build(make)
        self.feeds, self.outputs = {images_name: images}, list(outputs)
        shapes = static_shapes(import_graph(graph_def, "the test's"))
        fused = fold_before(fuse(GraphView(graph_def, shapes), keep=self.outputs), self.outputs, ())
        fused = equalize(fused, balance or {}, self.outputs)
        factors = {name: self._factors(fused, name, scale, offset) for name in fused.layers}
        self.asked, settled = factors, settle_steps(fused, factors, {})
        self.plan = QuantizationPlan(fused, settled, {}, self.outputs)
        self.quantized = quantize_graph(self.plan.restrict(dict.fromkeys(in_float, False)))
        self.batch = {f"{images_name}:0": images}
        self.execution = IntegerExecution(self.outputs, [self.batch])
        self.view = GraphView(self.quantized.graph_def, self.quantized.shapes)
        self.layers, self.simulated = integer_execution.find_kernel_layers(self.view, self.outputs)

    @staticmethod
    def _factors(fused, name, scale, offset):
        layer = fused.layers[name]
        scales = () if layer.weights is None else arq_scales("layer", layer.op_type, layer.weights, True).tolist()
        behind_relu = "relu" in fused.input_of(name)
        return LayerFactors(float(np.float32(scale)), -128 if behind_relu else offset, tuple(scales))

    @property
    def graph_def(self):
        return execution_graph(self.view, self.layers, self.outputs)

    def check(self):
        """Compares what comes out, to the bit; returns the op types of the execution graph."""
        self.compare(self.graph_def, self.feeds)
        return [node.op for node in self.graph_def.node]

    def regions(self):
        """Returns the parts for TensorFlow Lite, whether they pay or not."""
        with patch.object(LiteRegion, "pays", lambda self: True):
            return find_regions(self.view, self.layers, self.outputs)

    def in_lite(self):
        """Returns the execution of all these parts."""
        with patch.object(LiteRegion, "pays", lambda self: True):
            return lite_execution(self.view, self.layers, self.outputs)

    def check_in_lite(self):
        """Compares what comes out, to the bit; returns the names of the layers in TensorFlow Lite."""
        execution = self.in_lite()
        self.compare(execution.graph_def, self.feeds)
        return set(execution.layers)

    def compare(self, graph_def, feeds, quantized=None):
        expected = run((quantized or self.quantized).graph_def, self.outputs, feeds)
        for one, other in zip(expected, run(graph_def, self.outputs, feeds), strict=True):
            np.testing.assert_array_equal(one, other)


def conv(x, name, outputs=6, size=3, strides=1, padding="SAME", seed=None, **options):
    """Adds a convolution with a bias."""
    seed = sum(map(ord, name)) if seed is None else seed
    weights = normal((size, size, x.shape[-1], outputs), seed, 0.3)
    y = tf.nn.conv2d(x, weights, strides, padding, name=name, **options)
    return tf.nn.bias_add(y, normal((outputs,), seed + 1), name=f"{name}_bias")


def relu(x, name):
    """Adds a Relu; quantizers behind it begin at 0."""
    return tf.nn.relu(x, name=f"relu_{name}")


def places(shape=(None, 8, 8, 6)):
    """Adds the placeholder of images."""
    return tf1.placeholder(tf.float32, shape, name="x")


def images(*shape):
    return normal(shape, 3, 1.5)


def bottlenecks():
    """Expanding, depthwise, projecting; once more with a shortcut; and classes."""
    x = tf1.placeholder(tf.float32, [None, 8, 8, 6], name="x")
    for index in range(2):
        y = tf.nn.conv2d(x, normal((1, 1, 6, 12), index, 0.4), 1, "SAME", name=f"expand{index}")
        y = tf.nn.relu6(tf.nn.bias_add(y, normal((12,), 4)), name=f"relu_a{index}")
        y = tf.nn.depthwise_conv2d(y, normal((3, 3, 12, 1), index + 5, 0.4), [1] * 4, "SAME", name=f"depthwise{index}")
        y = tf.nn.relu6(tf.nn.bias_add(y, normal((12,), 6)), name=f"relu_b{index}")
        y = tf.nn.bias_add(
            tf.nn.conv2d(y, normal((1, 1, 12, 6), index + 8, 0.4), 1, "SAME", name=f"project{index}"), normal((6,), 7)
        )
        x = tf.add(x, y, name=f"add{index}")
    pooled = tf.reduce_mean(tf.nn.relu(x, name="last_relu"), [1, 2])
    tf.identity(tf.matmul(pooled, normal((6, 4), 9), name="classes"), name="out")
