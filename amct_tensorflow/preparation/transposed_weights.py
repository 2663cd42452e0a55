"""Transposes weights once and for all, instead of in every run.

    MatMul(x, w, transpose_b)      becomes      MatMul(x, transposed w)

Likewise a BatchMatMul with ``adj_y``. Only weights [channels in, channels out] can be quantized (spec section 10).
"""

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.layers import layer_weights
from amct_tensorflow.graph.nodes import make_const
from amct_tensorflow.graph.view import attribute
from amct_tensorflow.preparation.prepared import PreparedGraph

_FLAGS = {"MatMul": "transpose_b", "BatchMatMul": "adj_y", "BatchMatMulV2": "adj_y"}


def transpose_weights(graph: PreparedGraph) -> PreparedGraph:
    """Transposes the constant matrices that are taken transposed."""
    editor = graph.editor()
    origins: dict[str, tuple[str, ...]] = {}
    for node in graph.view.graph_def.node:
        if node.op not in _FLAGS or not attribute(node, _FLAGS[node.op]).b or node.name in graph.view.loop_nodes:
            continue
        weights = layer_weights(graph.shaped, node)  # TensorFlow has seen that the node has its inputs
        if weights is None or np.iscomplexobj(weights):  # which adj_y would conjugate, too
            continue
        const = make_const(editor.unique_name(f"{node.name}/transposed_weights"), np.ascontiguousarray(weights.T))
        straight = NodeDef()
        straight.CopyFrom(node)
        straight.attr[_FLAGS[node.op]].b = False
        straight.input[1] = editor.add(const, like=node.name)
        editor.replace_node(straight)
        origins[const.name] = graph.original_names(node.name)
    return graph.edited(editor, origins) if origins else graph
