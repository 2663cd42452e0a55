"""Finds the inputs and outputs of a model."""

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.names import OriginalName, PreparedName
from amct_tensorflow.graph.op_definitions import op_definition
from amct_tensorflow.graph.view import GraphView, Shape, upstream
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.ops import has, trait
from amct_tensorflow.ops.traits import ControlFlow, Fed, Observer
from amct_tensorflow.ops.varying import varying_nodes

# Conditions, and what only ops of TensorFlow can hold: the list that a loop has filled, and state.
_NO_OUTPUT_TYPES = frozenset({"bool", "resource", "variant"})


@dataclass(frozen=True)
class Endpoint:
    """An input or output of a model.

    Attributes:
        name: its node, without ``:0``.
        dtype: TensorFlow's name of its type.
        shape: its static shape; None if it may have any number of axes.
        has_default: whether it is an input that need not be fed.
    """

    name: str
    dtype: str
    shape: Shape | None
    has_default: bool = False


def find_inputs(model: FloatModel, outputs: Sequence[str]) -> list[Endpoint]:
    """Returns the inputs of the original model on which outputs depend: these have to be fed."""
    needed = upstream(model.original.nodes, map(OriginalName, outputs))
    return [
        _endpoint(model.outline, str(node.name), has_default=fed.has_default)
        for node in model.original.nodes.values()
        if (fed := trait(node.op, Fed)) is not None and node.name in needed
    ]


def find_outputs(model: FloatModel) -> list[Endpoint]:
    """Returns the outputs of a model: those that it was loaded with; without any, the values that its user may want.

    Those are the values that depend on data and that nothing reads. Conditions, checks, the end of a loop, and lists of
    tensors, which no session returns, are not among them.

    Raises:
        ModelError: an output yields nothing.
    """
    if model.outputs:
        return [_endpoint(model.outline, name) for name in model.outputs]
    varying = varying_nodes(model.original)
    names = [name for name in model.original.nodes if name in varying and _is_end(model.original, name)]
    kept = [name for name in names if PreparedName(name) in model.view.nodes]  # such nodes keep names and values
    return [end for end in (_endpoint(model.outline, name) for name in kept) if end.dtype not in _NO_OUTPUT_TYPES]


def _is_end(view: GraphView, name: str) -> bool:
    """Tells whether a node yields a value that nothing reads."""
    node = view.nodes[name]
    if name in view.loop_nodes or name in view.branch_nodes or has(node.op, Fed) or _is_never_asked_for(node):
        return False
    if any(not view.is_control(edge) for edge in view.consumers(name)):
        return False
    definition = op_definition(node.op, view.graph_def.library)
    return definition is not None and len(definition.output_arg) > 0


def _is_never_asked_for(node: NodeDef) -> bool:
    """Tells whether a node is the end of a check, or of a loop."""
    return trait(node.op, Observer) is Observer.CHECK or trait(node.op, ControlFlow) is ControlFlow.EXIT


def _endpoint(graph: tf.Graph, name: str, *, has_default: bool = False) -> Endpoint:
    tensors = graph.get_operation_by_name(name).outputs
    if not tensors:
        raise ModelError(f"Output {name!r} yields nothing. Give operators whose values are wanted.")
    tensor = tensors[0]
    shape = None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
    return Endpoint(name, tensor.dtype.base_dtype.name, shape, has_default)
