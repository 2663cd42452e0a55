"""The float twin of a quantized model: the same layers on what their integers stand for, without quantizers.

Converters of other tools know float graphs. They are given this one; the integers are then put where the converted
layers are.
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from amct_tensorflow.errors import ExportError
from amct_tensorflow.export.dilation import Dilation, write_dilations
from amct_tensorflow.export.integer_layer import IntegerLayer
from amct_tensorflow.export.output_grids import limits
from amct_tensorflow.graph.barrier import BARRIER
from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.quantized import ascend_ops


def make_float_twin(
    view: GraphView,
    layers: Iterable[IntegerLayer],
    placed: Collection[str],
    outputs: Sequence[str],
    dilations: Sequence[Dilation] = (),
) -> GraphDef:
    """Returns the twin.

    Activations that a quantizer repeats are left out of a quantized model, and so of its twin: whoever puts the
    integers back puts the quantizer back, too, which clips. Where nobody does, the twin clips instead.

    Args:
        view: the quantized model.
        layers: its quantized layers.
        placed: names of those whose quantizers will be put back.
        outputs: its output operators.
        dilations: its dilated convolutions, which converters are shown as such.

    Raises:
        ExportError: the model quantizes inputs of ops that are no layers.
    """
    editor = GraphEditor(view)
    if anti := editor.names_of(ascend_ops.ANTI_QUANT):
        raise ExportError(
            f"{anti[0]!r} brings back what tensor_quantize quantizes, which no export knows. Quantize the model "
            "without tensor_quantize."
        )
    for layer in layers:
        op_type = layer.op_type
        data = view.nodes[layer.quantizer].input[0]
        editor.replace_input(
            layer.name, op_type.data_input, data if layer.name in placed else _clipped(editor, layer, data)
        )
        if op_type.weight_input is not None:
            weights = editor.unique_name(f"{layer.name}/weights")
            editor.add(make_const(weights, layer.float_weights), like=layer.name)
            editor.replace_input(layer.name, op_type.weight_input, weights)
        if layer.bias is not None:
            bias = editor.unique_name(f"{layer.name}/bias")
            editor.add(make_const(bias, layer.float_bias), like=layer.name)
            editor.replace_input(layer.tail, 1, bias)
        editor.replace_node(make_node(layer.dequantizer, "Identity", [layer.tail], T=tf.float32))
    for name in editor.names_of(BARRIER):  # only TensorFlow's optimizer needs it
        editor.replace_node(make_node(name, "Identity", list(editor.node(name).input), T=tf.float32))
    write_dilations(editor, dilations)
    return editor.graph_def_for(outputs)


def _clipped(editor: GraphEditor, layer: IntegerLayer, tensor: str) -> str:
    """Clips what a layer reads to the range of its quantizer; returns the node that does."""
    for op, bound in zip(("Maximum", "Minimum"), limits(layer.input_grid), strict=True):
        name = editor.unique_name(f"{layer.name}/{op}")
        limit = editor.add(make_const(f"{name}/limit", np.array(bound, np.float32)), like=layer.name)
        tensor = editor.add(make_node(name, op, [tensor, limit], T=tf.float32), like=layer.name)
    return tensor
