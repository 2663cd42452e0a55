"""Moves a bias from behind a split of channels to before it, where a layer can take it in.

    MatMul --> Reshape [..., heads, size] --> AddV2 [heads, size] --> y
                                                  becomes
    MatMul --> AddV2 [heads * size] --> Reshape [..., heads, size] --> y

The attention of Keras so writes the projections of queries, keys and values.
"""

import math

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.view import GraphView, data_inputs
from amct_tensorflow.model.preparation.prepared import Origins, PreparedGraph
from amct_tensorflow.ops import has
from amct_tensorflow.ops.traits import Sum


def bias_before_split(graph: PreparedGraph) -> PreparedGraph:
    """Moves the addition of constants from behind a Reshape that splits the last axis to before it."""
    editor = graph.editor()
    origins: Origins = {}
    for node in graph.view.graph_def.node:
        reshape = _reshape(graph, node)
        bias = None if reshape is None else _bias(graph.shaped, node, reshape)
        if reshape is None or bias is None:
            continue
        name = editor.unique_name(f"{node.name}/before_split")
        const = editor.add(make_const(editor.unique_name(f"{name}/y"), bias), like=node.name)
        add = editor.add(make_node(name, node.op, [reshape.input[0], const], T=node.attr["T"]), like=node.name)
        split = NodeDef()
        split.CopyFrom(reshape)
        split.name = node.name
        split.input[0] = add
        origins |= dict.fromkeys((add, const), graph.original_names(node.name))
        origins[node.name] = graph.originals_of([reshape.name, node.name])
        editor.replace_node(split)
    return graph.edited(editor, origins) if origins else graph


def _reshape(graph: PreparedGraph, node: NodeDef) -> NodeDef | None:
    """Returns the Reshape to whose output, read by nobody else, a node adds something."""
    if not has(node.op, Sum) or node.name in graph.view.loop_nodes:
        return None
    for text in data_inputs(node.input):
        before = graph.view.producer(text)
        if before.op == "Reshape" and before.name not in graph.kept and len(graph.view.consumers(before.name)) == 1:
            return before
    return None


def _bias(view: GraphView, node: NodeDef, reshape: NodeDef) -> np.ndarray | None:
    """Returns the bias that a node adds to each channel before a Reshape, [channels].

    None if it adds no constant per channel, or one that gives the sum another shape than the Reshape has.
    """
    constants = [view.constant(text) for text in data_inputs(node.input)]
    added = next((constant for constant in constants if constant is not None), None)
    whole, split = view.shape(reshape.input[0]), view.shape(reshape.name)
    if added is None or not whole or split is None or whole[-1] is None or added.ndim > len(split):
        return None
    for axes in range(2, len(split) + 1):
        lengths = [length for length in split[-axes:] if length is not None]
        if len(lengths) < axes:
            return None
        if math.prod(lengths) == whole[-1]:
            aligned = (1,) * (len(split) - added.ndim) + added.shape
            wanted = (1,) * (len(split) - axes) + tuple(lengths)
            if any(length not in (1, whole_length) for length, whole_length in zip(aligned, wanted, strict=True)):
                return None
            return np.broadcast_to(added.reshape(aligned), wanted).reshape(-1)
    return None
