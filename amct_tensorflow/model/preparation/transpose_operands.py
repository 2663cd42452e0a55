"""Writes the transposition of a computed operand as an op of its own.

    BatchMatMulV2(q, k, adj_y)                     becomes      BatchMatMulV2(q, Transpose(k, [0, 1, 3, 2]))
    BatchMatMulV2(q, Transpose(k, order), adj_y)                BatchMatMulV2(q, Transpose(k, both orders in one))

Only products of operands as they stand can be quantized (spec section 10). The values are the same, but for the order
in which a kernel adds.
"""

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import attribute
from amct_tensorflow.model.layers import control_flow_reason, form_of
from amct_tensorflow.model.preparation.prepared import Origins, PreparedGraph


def transpose_operands(graph: PreparedGraph) -> PreparedGraph:
    """Writes a Transpose wherever a float32 product of two computed operands transposes one of known rank."""
    editor = graph.editor()
    origins: Origins = {}
    for node in graph.view.graph_def.node:
        op_type = form_of(graph.view, node)
        if op_type is None or not any(attribute(node, flag).b for flag in op_type.transposing):
            continue
        is_float32 = attribute(node, "T").type == tf.float32.as_datatype_enum
        if not is_float32 or control_flow_reason(graph.view, node) is not None:
            continue
        straight = NodeDef()
        straight.CopyFrom(node)
        for index, flag in zip(op_type.operands, op_type.transposing, strict=True):
            if not attribute(node, flag).b:
                continue
            shape = graph.shaped.shape(node.input[index])
            if shape is None:
                continue
            order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
            straight.attr[flag].b = False
            straight.input[index] = _transpose(graph, editor, node, index, order, origins)
        editor.replace_node(straight)
    return graph.edited(editor, origins) if origins else graph


def _transpose(
    graph: PreparedGraph, editor: GraphEditor, node: NodeDef, index: int, order: list[int], origins: Origins
) -> str:
    """Adds a Transpose of an operand, together with one that stands there already; returns its name."""
    data, originals = str(node.input[index]), graph.original_names(node.name)
    before = graph.view.producer(data)
    first = graph.view.constant(before.input[1]) if before.op == "Transpose" else None
    if first is not None and len(graph.view.consumers(before.name)) == 1 and before.name not in graph.kept:
        data, order = str(before.input[0]), [int(first[axis]) for axis in order]
        originals = graph.originals_of([before.name, node.name])
    constant = editor.unique_name(f"{node.name}/perm")
    perm = editor.add(make_const(constant, np.array(order, np.int32)), like=node.name)
    name = editor.unique_name(f"{node.name}/Transpose")
    editor.add(make_node(name, "Transpose", [data, perm], T=tf.float32, Tperm=tf.int32), like=node.name)
    origins.update({constant: originals, name: originals})
    return name
