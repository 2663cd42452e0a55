"""Finds out whether models can run in integers with this TensorFlow, these settings and this processor.

oneDNN's integer kernels are exact where the processor adds up four products of an unsigned and a signed byte in 32 bits
(AVX-512 VNNI, AVX-VNNI, AMX). Older ones add pairs of them in 16 bits, which saturate, and are no faster than with
floats. A convolution with known sums shows which of these holds.
"""

from functools import cache
from importlib import import_module

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.graph.graph_runner import GraphRunner
from amct_tensorflow.graph.names import LayerName, QuantizedName
from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.io.onednn import VARIABLE as ONEDNN
from amct_tensorflow.io.onednn import onednn_is_on
from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer, Quantizer
from amct_tensorflow.search.integers import integer_nodes
from amct_tensorflow.search.integers.integer_nodes import Scope
from amct_tensorflow.search.integers.kernel_layer import (
    CONVOLUTION,
    DEPTHWISE_CONVOLUTION,
    KernelLayer,
    as_kernel_layer,
    has_kernel,
)

# As many channels as kernels that are made for a processor want; fewer would be left to others.
_CHANNELS = 32
_BYTE, _WEIGHT = 255, 127


@cache
def why_no_integer_kernels() -> str | None:
    """Returns why this process cannot run integer kernels; None if it can."""
    missing = [op for op in (CONVOLUTION, DEPTHWISE_CONVOLUTION) if not has_kernel(op)]
    if missing:
        return f"this TensorFlow has no {missing[0]}"
    if not onednn_is_on():
        return f"oneDNN is switched off ({ONEDNN})"
    if tf.config.list_physical_devices("GPU"):
        return "the model runs on a GPU, and the integer kernels on the processor"
    if not _is_exact():
        return "this processor has no exact products of bytes (VNNI)"
    return None


@cache
def why_no_lite_kernels() -> str | None:
    """Returns why this process cannot run TensorFlow Lite's kernels beside TensorFlow's; None if it can."""
    if tf.config.list_physical_devices("GPU"):
        return "the model runs on a GPU, and TensorFlow Lite on the processor"
    try:
        import_module("tensorflow.lite.python.schema_py_generated")
        has_lite = hasattr(tf.lite, "Interpreter")
    except (ImportError, AttributeError):
        has_lite = False
    return None if has_lite else "this TensorFlow comes without TensorFlow Lite"


def _is_exact() -> bool:
    """Tells whether a convolution of the greatest bytes and weights is exact."""
    try:
        sums = _greatest_sums()
    except tf.errors.OpError:
        return False
    return bool(np.all(sums == _CHANNELS * _BYTE * _WEIGHT))


def _greatest_sums() -> np.ndarray:
    """Returns the sums of the kernel in a pointwise convolution of the greatest bytes and weights."""
    node = make_node("layer", "Conv2D", (), strides=[1, 1, 1, 1], dilations=[1, 1, 1, 1], padding="VALID")
    quantized = QuantizedLayer(
        node=node,
        key=LayerName(str(node.name)),
        op_type=OP_TYPES["Conv2D"],
        quantizers=(Quantizer(QuantizedName("quantizer"), "data", ActivationFactors(1.0, -128)),),
        sums=QuantizedName("layer"),
        dequantizer=QuantizedName("dequantizer"),
        deq_scale=np.ones(_CHANNELS, np.float32),
        weights=np.full((1, 1, _CHANNELS, _CHANNELS), _WEIGHT, np.int8),
        bias=None,
    )
    data = np.full((1, 4, 4, _CHANNELS), _BYTE, np.uint8)
    layer = as_kernel_layer(quantized, data.shape)
    assert isinstance(layer, KernelLayer)
    editor = GraphEditor(GraphView(GraphDef(node=[make_node("layer", "NoOp", ())])))
    scope = Scope(editor, "layer")
    read = scope.quantized("data", data, tf.quint8)
    sums = integer_nodes.sums(scope, layer, read)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(editor.graph_def(), name="")
        with GraphRunner(graph) as runner:
            return np.asarray(runner.run(f"{sums}:0"))
