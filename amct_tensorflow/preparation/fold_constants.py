"""Computes what follows from constants alone.

    variance --> AddV2 --> Rsqrt --> Mul --> Mul(x, .)
    epsilon  ------^         gamma ---^                      becomes      Mul(x, Const)

TensorFlow itself computes the values, once. The constant takes the name of the node whose value it is. TensorFlow's own
optimizer is not used for this: what else it rewrites, and how it names what it makes, differs between its versions.
"""

import numpy as np
import tensorflow as tf

from amct_tensorflow.errors import ModelError, first_line
from amct_tensorflow.graph.nodes import make_const
from amct_tensorflow.graph.op_definitions import is_stateful
from amct_tensorflow.graph.rewrite import GraphEditor, subgraph
from amct_tensorflow.graph.view import GraphView, parse_tensor_name
from amct_tensorflow.preparation.prepared import PreparedGraph

_NEVER = frozenset({"Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond", "PlaceholderWithDefault"})
_PASSES_ON = frozenset({"Identity", "Const"})
# A constant may take so many elements, or as many as those it follows from; else the file would grow.
_SMALL = 1 << 14


def fold_constants(graph: PreparedGraph) -> PreparedGraph:
    """Replaces by constants the nodes that follow from constants, as far as others read them.

    Raises:
        ModelError: TensorFlow cannot compute one.
    """
    constant = _constant_nodes(graph.view)
    wanted = [
        name
        for name in constant
        if graph.view.nodes[name].op not in _PASSES_ON
        and any(
            edge.node.name not in constant for edge in graph.view.consumers(name) if not graph.view.is_control(edge)
        )
    ]
    if not wanted:
        return graph
    values = _compute(graph, wanted)
    if not values:
        return graph
    editor = GraphEditor(graph.view)
    origins: dict[str, tuple[str, ...]] = {}
    for tensor, value in values.items():
        name, _, port = tensor.rpartition(":")
        if port == "0":
            editor.replace_node(make_const(name, value))
        else:
            other = editor.add(make_const(editor.unique_name(f"{name}/output_{port}"), value), like=name)
            editor.replace_tensors({tensor: other})
            origins[other] = graph.original_names(name)
    return graph.edited(editor, origins)


def _constant_nodes(view: GraphView) -> dict[str, None]:
    """Returns the nodes that depend on constants alone, in topological order."""
    found: dict[str, None] = {}
    for node in view.topological():
        if node.op == "Const":
            is_constant = not node.input
        else:
            follows = bool(node.input) and all(parse_tensor_name(text).node in found for text in node.input)
            is_constant = follows and node.op not in _NEVER and not is_stateful(node.op, view.graph_def.library)
        if is_constant and node.name not in view.loop_nodes:
            found[node.name] = None
    return found


def _readers(view: GraphView, name: str) -> set[str]:
    return {edge.node.name for edge in view.consumers(name) if not view.is_control(edge)}


def _compute(graph: PreparedGraph, names: list[str]) -> dict[str, np.ndarray]:
    """Computes the outputs of nodes, by full name; none of a node of which one cannot or should not be a constant."""
    part = subgraph(graph.view.graph_def, names)
    with tf.Graph().as_default() as live:
        try:
            tf.import_graph_def(part, name="")
            operations = [live.get_operation_by_name(name) for name in names]
            fitting = [operation for operation in operations if all(map(_fits, operation.outputs))]
            tensors = {tensor.name: tensor for operation in fitting for tensor in operation.outputs}
            options = tf.compat.v1.ConfigProto()
            options.graph_options.rewrite_options.disable_meta_optimizer = True  # everything is computed once
            with tf.compat.v1.Session(graph=live, config=options) as session:
                values = session.run(tensors)
        except (ValueError, tf.errors.OpError) as error:
            raise ModelError(
                f"TensorFlow cannot compute the constants of the model: {first_line(error)} Freeze it again."
            ) from error
    return {tensor: np.asarray(value) for tensor, value in values.items()}


def _fits(tensor: tf.Tensor) -> bool:
    if not (
        tensor.dtype.is_numpy_compatible
        and (tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool)
    ):
        return False
    count = tensor.shape.num_elements()
    sources = [each.shape.num_elements() or 0 for each in tensor.op.inputs]
    return count is not None and count <= max([_SMALL, *sources])
