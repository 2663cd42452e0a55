"""Gives convolutions and products of computed operands that have no bias one that is nearly 0.

    Conv -> y   ->   Conv -> Add(2^-126) -> y

OpenVINO 2026.4 joins the factor that brings their sums back from integers with the factors that stand behind. Where two
nodes read the sums, it scales twice (`findings/openvino_scales_twice_what_two_nodes_read.sh`); and factors below 0 come
in front of a Relu that stands between (`findings/openvino_multiplies_before_the_relu.sh`). A sum with a constant keeps
the factors apart, unless it is 0.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from amct_tensorflow.export.onnx.onnx_editor import OnnxEditor
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer

# The smallest float32 that no processor takes for 0. Added to any value of a layer but 0 it changes nothing.
_NEARLY_0 = np.array(np.finfo(np.float32).tiny)
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def with_biases(model: Any, nodes: Mapping[str, str], layers: Mapping[str, QuantizedLayer]) -> Any:
    """Returns an ONNX model in which each of these layers adds a constant to its sums.

    Args:
        model: the model.
        nodes: per quantized layer, the name of its node.
        layers: the layers by name.
    """
    editor = OnnxEditor(model)
    found = {node.name: node for node in editor.nodes}
    for name, node_name in nodes.items():
        node, layer = found[node_name], layers[name]
        is_bare = layer.bias is None or not layer.bias.any()
        if is_bare and (node.op_type in _CONVOLUTIONS or layer.is_product):
            end = str(node.output[0])
            node.output[0] = f"{name}/sums"
            editor.add_node("Add", [node.output[0], editor.add_constant(f"{name}/nearly_0", _NEARLY_0)], end)
    return editor.model()
