"""The float reference graph of a quantized model: its layers on dequantized weights and biases, without quantizers.

Converters of other tools convert this float graph; the integers are then put into the converted layers.
"""

from collections.abc import Collection, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.export.dilation import Dilation, write_dilations
from amct_tensorflow.graph.nodes import BARRIER, make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, parse_tensor_name
from amct_tensorflow.ops.op_table import has, op_types_with
from amct_tensorflow.ops.traits import Convolution, PutsTogether
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.quantized import ascend_ops
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer, damaged, read_quantizer


def make_float_reference(
    view: GraphView,
    layers: Collection[QuantizedLayer],
    placed: Collection[str],
    outputs: Sequence[str],
    dilations: Sequence[Dilation] = (),
    ties: Collection[str] = (),
) -> GraphDef:
    """Returns the float reference graph.

    A quantized model leaves out an activation that its quantizer repeats, and so does the float reference: whoever
    puts the integers back puts the quantizer back, too, which clips. Where nobody does, the float reference clips.

    Args:
        view: the quantized model.
        layers: its quantized layers.
        placed: names of those whose quantizers will be put back.
        outputs: its output operators.
        dilations: its dilated convolutions, which converters are shown as such.
        ties: quantizers that read values in the middle between two levels, which are rounded in front of them.

    Raises:
        ModelError: the model was changed since it was written.
    """
    editor = GraphEditor(view)
    for name in editor.names_of(ascend_ops.ANTI_QUANT):
        _write_rounding(editor, view, name)
    rounded: dict[str, str] = {}
    for layer in layers:
        op_type = layer.op_type
        for index, quantizer in zip(op_type.operands, layer.quantizers, strict=True):
            data = quantizer.data
            if layer.name not in placed:
                data = _clipped(editor, layer.name, quantizer.grid, data)
            elif quantizer.name in ties:
                if quantizer.name not in rounded:
                    rounded[quantizer.name] = _rounded(editor, quantizer.name, quantizer.grid, data)
                data = rounded[quantizer.name]
            editor.replace_input(layer.name, index, data)
        if op_type.weight_input is not None:
            weights = editor.unique_name(f"{layer.name}/weights")
            editor.add(make_const(weights, layer.float_weights), like=layer.name)
            editor.replace_input(layer.name, op_type.weight_input, weights)
        if layer.bias is not None:
            bias = editor.unique_name(f"{layer.name}/bias")
            editor.add(make_const(bias, layer.float_bias), like=layer.name)
            editor.replace_input(layer.sums, 1, bias)
        for name in {layer.name, layer.sums}:
            editor.set_type(name, tf.float32)  # layers that read 16 bits compute in float64
        editor.replace_node(make_node(layer.dequantizer, "Identity", [layer.sums], T=tf.float32))
    for name in editor.names_of(BARRIER):  # only TensorFlow's optimizer needs it
        editor.replace_node(make_node(name, "Identity", list(editor.node(name).input), T=tf.float32))
    write_dilations(editor, dilations)
    _keep_phases_apart(editor, {layer.dequantizer for layer in layers})
    return editor.graph_def_for(outputs)


def _keep_phases_apart(editor: GraphEditor, dequantizers: Collection[str]) -> None:
    """Puts something between a float convolution, or its bias, and the node that puts its phases together.

    TensorFlow Lite's converter takes any convolution there for a dilated one: it refuses a bias before BatchToSpaceND,
    and strides and crops that no dilation has. What can be written as a dilation is so already.
    """
    for op in op_types_with(PutsTogether):
        for name in editor.names_of(op):
            source = editor.node(parse_tensor_name(editor.node(name).input[0]).node)
            if source.name not in dequantizers and (source.op == "BiasAdd" or has(source.op, Convolution)):
                highest = float(np.finfo(np.float32).max)
                apart = _with_constant(editor, name, "Minimum", source.name, highest)
                editor.replace_input(name, 0, apart)


def _clipped(editor: GraphEditor, name: str, grid: ActivationFactors, tensor: str) -> str:
    """Clips what a node reads to a grid; returns the node that does."""
    for op, bound in zip(("Maximum", "Minimum"), grid.limits, strict=True):
        tensor = _with_constant(editor, name, op, tensor, bound)
    return tensor


def _with_constant(editor: GraphEditor, name: str, op: str, tensor: str, value: float) -> str:
    """Adds an op of a tensor and a constant in the scope of a node; returns its name."""
    result = editor.unique_name(f"{name}/{op}")
    constant = editor.add(make_const(f"{result}/limit", np.array(value, np.float32)), like=name)
    return editor.add(make_node(result, op, [tensor, constant], T=tf.float32), like=name)


def _write_rounding(editor: GraphEditor, view: GraphView, name: str) -> None:
    """Writes a pair of AscendQuant and AscendAntiQuant as what it does: it rounds floats to a grid.

    As it clips first, no converter folds its steps into what lies before.
    """
    source = view.producer(view.nodes[name].input[0])
    if source.op != ascend_ops.QUANT:
        raise damaged(name)
    quantizer = read_quantizer(source)
    clipped = _clipped(editor, name, quantizer.grid, quantizer.data)
    brought_back = _rounded(editor, name, quantizer.grid, clipped)
    editor.replace_node(make_node(name, "Identity", [brought_back], T=tf.float32))


def _rounded(editor: GraphEditor, name: str, grid: ActivationFactors, tensor: str) -> str:
    """Rounds floats to the steps of a grid as AscendQuant does; returns the node that does."""
    steps = _with_constant(editor, name, "Mul", tensor, float(grid.inverse))
    rounded = editor.add(make_node(editor.unique_name(f"{name}/Round"), "Round", [steps], T=tf.float32), like=name)
    return _with_constant(editor, name, "Mul", rounded, grid.scale)
