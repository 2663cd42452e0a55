"""Computes what follows from constants alone.

    variance --> AddV2 --> Rsqrt --> Mul --> Mul(x, .)
    epsilon  ------^         gamma ---^                      becomes      Mul(x, Const)

TensorFlow itself computes the values, once. The constant takes the name of the node whose value it is. TensorFlow's own
optimizer is not used: its other rewrites, and its names, differ between versions.

A file must not grow by it: what takes more than the nodes that compute it stays computed. But for what a layer reads,
which may be its weights, and what is all the same, which the quantized file has as one number.
"""

from collections.abc import Collection, Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import first_line
from amct_tensorflow.graph.graph_runner import GraphRunner
from amct_tensorflow.graph.names import PreparedName
from amct_tensorflow.graph.nodes import make_const
from amct_tensorflow.graph.rewrite import subgraph
from amct_tensorflow.graph.view import GraphView, attribute, parse_tensor_name, stored_bytes, upstream
from amct_tensorflow.graph.weights import take_weights_out
from amct_tensorflow.log import log_for
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.model.preparation.prepared import Origins, PreparedGraph
from amct_tensorflow.ops import OP_TYPES, has
from amct_tensorflow.ops.traits import ControlFlow
from amct_tensorflow.ops.varying import follows_from_inputs

_PASSES_ON = frozenset({"Identity", "Const"})
# A constant takes at most so many elements, or as many as the file holds of those it follows from.
_SMALL = 1 << 14


def fold_constants(graph: PreparedGraph, but: Collection[str] = ()) -> PreparedGraph:
    """Replaces by constants the nodes that follow from constants, as far as others read them.

    Values that TensorFlow cannot compute stay as they are; the outputs may not need them.

    Args:
        graph: the graph.
        but: op types that are left alone.

    Raises:
        ModelError: TensorFlow refuses the graph.
    """
    constant = _constant_nodes(graph.view, but)
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
    names = {tensor: tensor.rpartition(":")[0] for tensor in values}
    growing = {names[tensor] for tensor, value in values.items() if _grows(graph.view, names[tensor], value)}
    values = {tensor: value for tensor, value in values.items() if names[tensor] not in growing}
    if not values:
        return graph
    editor = graph.editor()
    origins: Origins = {}
    for tensor, value in values.items():
        name, _, port = tensor.rpartition(":")
        if port == "0":
            editor.replace_node(make_const(name, value))
        else:
            other = editor.add(make_const(editor.unique_name(f"{name}/output_{port}"), value), like=name)
            editor.replace_tensors({tensor: other})
            origins[other] = graph.original_names(PreparedName(name))
    return graph.edited(editor, origins)


def _constant_nodes(view: GraphView, but: Collection[str]) -> dict[str, None]:
    """Returns the nodes that depend on constants alone, and on no op type of some, in topological order."""
    found: dict[str, None] = {}
    for node in view.topological():
        if node.op == "Const":
            is_constant = not node.input
        else:
            follows = bool(node.input) and all(parse_tensor_name(text).node in found for text in node.input)
            is_constant = follows and node.op not in but and _may_be_folded(view, node)
        if is_constant and node.name not in view.loop_nodes:
            found[node.name] = None
    return found


def _may_be_folded(view: GraphView, node: NodeDef) -> bool:
    return follows_from_inputs(node, view.graph_def.library) and not has(node.op, ControlFlow)


def _compute(graph: PreparedGraph, names: list[str]) -> dict[str, np.ndarray]:
    """Computes the outputs of nodes, by full name; none of a node of which one cannot or should not be a constant.

    Raises:
        ModelError: TensorFlow refuses the graph.
    """
    needed = upstream(graph.view.nodes, names)
    part, weights = take_weights_out(graph.view.graph_def, needed)
    live = import_graph(subgraph(part, names), graph.source)
    stored = {name: _stored_elements(node) for name in needed if (node := graph.view.nodes[name]).op == "Const"}
    fitting = _fitting(live, stored)
    operations = [live.get_operation_by_name(name) for name in names]
    wanted = [list(each.outputs) for each in operations if all(tensor.name in fitting for tensor in each.outputs)]
    with GraphRunner(live) as runner:
        runner.weights = {f"{name}:0": value for name, value in weights.items()}
        try:
            values = runner.run(wanted)
        except tf.errors.OpError:  # of one of them, which perhaps nobody needs
            values = [_run_alone(runner, tensors) for tensors in wanted]
    return {
        tensor.name: np.asarray(value)
        for tensors, results in zip(wanted, values, strict=True)
        for tensor, value in zip(tensors, results, strict=False)
    }


def _run_alone(runner: GraphRunner, tensors: list[tf.Tensor]) -> list[np.ndarray]:
    """Returns the values of tensors, none if TensorFlow cannot compute them."""
    try:
        return list(runner.run(tensors))
    except tf.errors.OpError as error:
        log_for("preparation").debug("Node %s stays as it is: %s", tensors[0].op.name, first_line(error))
        return []


def _fitting(graph: tf.Graph, stored: Mapping[str, int]) -> set[str]:
    """Returns the tensors that may become constants, by full name.

    Args:
        graph: nodes that follow from constants.
        stored: per constant, how many elements of it the file holds.
    """
    fitting: set[str] = set()
    shares: dict[str, int] = {}
    for operation in graph.get_operations():
        given = stored.get(operation.name, sum(shares[name] for name in {each.name for each in operation.inputs}))
        for tensor in operation.outputs:
            count = tensor.shape.num_elements()
            shares[tensor.name] = given if count is None else min(given, count)
            if _can_be_constant(tensor.dtype) and count is not None and count <= max(_SMALL, given):
                fitting.add(tensor.name)
    return fitting


def _grows(view: GraphView, name: str, value: np.ndarray) -> bool:
    """Tells whether a file would grow if it had a value of a node in place of the nodes that compute it."""
    is_layers = any(reader.op in OP_TYPES for reader in view.readers(name))
    if is_layers or (value == value.flat[:1]).all():
        return False
    return bool(value.nbytes > sum(view.nodes[each].ByteSize() for each in upstream(view.nodes, [name])))


def _stored_elements(const: NodeDef) -> int:
    """Returns how many elements a file holds of a constant; of one that is all alike it may be one alone."""
    dtype = tf.dtypes.as_dtype(attribute(const, "dtype").type)
    return int(stored_bytes(attribute(const, "value").tensor) // max(dtype.size, 1))


def _can_be_constant(dtype: tf.DType) -> bool:
    return bool(dtype.is_numpy_compatible and (dtype.is_floating or dtype.is_integer or dtype.is_bool))
