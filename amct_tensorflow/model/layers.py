"""Finds the nodes that can be quantized, and says why others cannot (spec section 10)."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.names import LayerName, OriginalName
from amct_tensorflow.graph.view import GraphView, attribute, data_inputs
from amct_tensorflow.ops import OP_TYPES, UNQUANTIZED, Quantizable, has, trait
from amct_tensorflow.ops.traits import ControlFlow, Identity, ReadsVariable, Variable

# Why what stands in a loop, or in a branch of a cond, cannot be quantized.
IN_LOOP = "it runs inside a loop, any number of times per batch"
IN_BRANCH = "it stands in a branch that is taken or not as a value in the graph says"

# What models of mixed precision compute in, and what to do about it.
HALF_PRECISION = (tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum)
IN_FLOAT32 = "build the model under the policy float32 (in Keras, mixed_precision), load its weights and save that"


@dataclass(frozen=True)
class LayerSpec:
    """A quantizable layer, as far as the configuration has to know it.

    Attributes:
        name: node name.
        op_type: TensorFlow op type, one of ``OP_TYPES``.
        channel_wise: whether its weights get one scale per output channel by default; False without weights, and for
            convolutions whose filter covers the whole input feature map (they are fully connected layers, spec section
            12.1).
        is_product: whether both of its operands are computed, as in attention; it has no weights then.
        written_as: its name in the model's file, if preparation gave that name to another node; a configuration may use
            either.
    """

    name: LayerName
    op_type: str
    channel_wise: bool
    is_product: bool = False
    written_as: OriginalName | None = None

    @property
    def op(self) -> Quantizable:
        """What is known of its op type, in the form that its operands give it."""
        return OP_TYPES[self.op_type].with_operands(computed=self.is_product)


def layer_names(layers: Iterable[LayerSpec]) -> dict[str, LayerName]:
    """Returns per name that a user's file may use for a layer, the layer's name."""
    known = list(layers)
    also: dict[str, LayerName] = {layer.written_as: layer.name for layer in known if layer.written_as is not None}
    return {**also, **{layer.name: layer.name for layer in known}}


def is_product(view: GraphView, node: NodeDef) -> bool:
    """Tells whether a node multiplies two computed operands: neither is a constant, nor a variable."""
    op_type = OP_TYPES.get(node.op)
    if op_type is None or op_type.of_computed is None:
        return False
    inputs = data_inputs(node.input)
    return all(is_computed(view, inputs[index]) for index in op_type.of_computed.operands)


def form_of(view: GraphView, node: NodeDef) -> Quantizable | None:
    """Returns what is known of the op type of a node, in the form that its operands give it; None if it has none."""
    op_type = OP_TYPES.get(node.op)
    return None if op_type is None else op_type.with_operands(computed=is_product(view, node))


def layer_weights(view: GraphView, node: NodeDef) -> np.ndarray | None:
    """Returns the constant weights of a layer; None where there are none, or they are no constant of the right rank."""
    op_type = OP_TYPES[node.op]
    if op_type.weight_input is None:
        return None
    weights = view.constant(node.input[op_type.weight_input])
    return weights if weights is not None and weights.ndim == op_type.weight_rank else None


def why_not_quantizable(view: GraphView, node: NodeDef) -> str | None:
    """Returns why a node cannot be quantized, as the rest of a sentence about it; None if it can."""
    op_type = form_of(view, node)
    if op_type is None:
        return _why_not_type(view, node)
    dtype = attribute(node, "T").type
    if dtype != tf.float32.as_datatype_enum:
        name = tf.dtypes.as_dtype(dtype).name if dtype else "no type that the graph tells"
        remedy = f"; {IN_FLOAT32}" if dtype in HALF_PRECISION else ""
        return f"it computes {name}, and only float32 can be quantized{remedy}"
    place = control_flow_reason(view, node)
    if place is not None:
        return place
    if op_type.weight_input is not None:
        reason = _why_not_weights(view, node, op_type)
        if reason is not None:
            return reason
    if view.constant(node.input[op_type.data_input]) is not None:
        return "its input is a constant"
    return op_type.restriction(node)


def control_flow_reason(view: GraphView, node: NodeDef) -> str | None:
    """Returns why control flow keeps a node in float, as the rest of a sentence about it; None if it does not."""
    if node.name in view.loop_nodes:
        return IN_LOOP
    return IN_BRANCH if node.name in view.branch_nodes else None


def _why_not_type(view: GraphView, node: NodeDef) -> str:
    unquantized = UNQUANTIZED.get(node.op)
    if unquantized is None:
        return f"its op type {node.op} is none of {', '.join(OP_TYPES)}"
    inputs = data_inputs(node.input)
    factors = [*inputs[:1], *inputs[unquantized.weight_input : unquantized.weight_input + 1]]
    if len(factors) == 2 and view.constant(factors[0]) is None and has(_origin(view, factors[1]).op, Variable):
        return _no_constant(view, factors[1])
    return unquantized.reason


def _why_not_weights(view: GraphView, node: NodeDef, op_type: Quantizable) -> str | None:
    assert op_type.weight_input is not None
    weights = view.constant(node.input[op_type.weight_input])
    if weights is None:
        operands = [node.input[index] for index in (op_type.data_input, op_type.weight_input)]
        if view.constant(operands[0]) is not None and is_computed(view, operands[1]):
            return "its first operand is a constant, and only its second one can be weights"
        return _no_constant(view, operands[1])
    if weights.ndim != op_type.weight_rank:
        return f"its weights have {weights.ndim} axes, and only {op_type.weight_rank} can be quantized"
    return None


def _no_constant(view: GraphView, text: str) -> str:
    """Returns why weights are not constant."""
    node = _origin(view, text)
    if has(node.op, Variable):
        return f"its weights are the variable {node.name!r}, as the model is not frozen"
    return "its weights are no constant, but computed"


def is_computed(view: GraphView, text: str) -> bool:
    """Tells whether a value is neither a constant, nor that of a variable."""
    return view.constant(text) is None and not has(_origin(view, text).op, Variable)


def _origin(view: GraphView, text: str) -> NodeDef:
    """Returns the node that made a value, in front of those that pass it on as it is."""
    node, seen = view.producer(text), set[str]()
    while _passes_value_on(node) and node.name not in seen:
        seen.add(node.name)
        node = view.producer(node.input[0])
    return node


def _passes_value_on(node: NodeDef) -> bool:
    """Tells whether a node yields the value of a variable, or what it reads as it is, if at all."""
    is_gate = trait(node.op, ControlFlow) in (ControlFlow.ENTER, ControlFlow.SWITCH)
    return is_gate or has(node.op, Identity) or has(node.op, ReadsVariable)


def find_layers(view: GraphView) -> list[LayerSpec]:
    """Finds the quantizable layers of a graph, in its order.

    Args:
        view: the graph with its shapes, which tell a fully connected 1x1 convolution from a regular one.
    """
    return [_layer_spec(view, node) for node in view.graph_def.node if why_not_quantizable(view, node) is None]


def _layer_spec(view: GraphView, node: NodeDef) -> LayerSpec:
    product = is_product(view, node)
    op_type = OP_TYPES[node.op].with_operands(computed=product)
    channel_wise = op_type.has_weights and not _is_fully_connected(view, node)
    return LayerSpec(LayerName(node.name), node.op, channel_wise, product)


def _is_fully_connected(view: GraphView, node: NodeDef) -> bool:
    op_type = OP_TYPES[node.op]
    weights = layer_weights(view, node)
    data = view.shape(node.input[op_type.data_input])
    return weights is not None and data is not None and op_type.is_fully_connected(node, weights.shape, data)
