"""Finds the tensors of the caller's graph from which the inputs of all quantized layers can be computed."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from tensorflow.core.framework.function_pb2 import FunctionDefLibrary
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.types_pb2 import DT_RESOURCE, DT_VARIANT

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.names import PreparedName
from amct_tensorflow.graph.op_definitions import functions_named, op_definition, output_types
from amct_tensorflow.graph.view import (
    CONTROL,
    Consumer,
    GraphView,
    data_inputs,
    full_tensor_name,
    parse_tensor_name,
    upstream,
)
from amct_tensorflow.ops import has, trait
from amct_tensorflow.ops.traits import Call, Fed, Iterator, RunState
from amct_tensorflow.ops.varying import yields_own_data

# Types of tensors that no array can hold.
_NO_NUMBERS = frozenset({DT_RESOURCE, DT_VARIANT})


def replay_sources(
    view: GraphView, callers: Collection[str], inputs: Mapping[PreparedName, Sequence[str]], outputs: Sequence[str] = ()
) -> list[str]:
    """Finds the tensors from which the inputs of all layers follow, and the outputs if asked for.

    The walk goes up from the layers and stops at the inputs of the first layers (those that depend on no other), and
    at nodes that yield data of their own: placeholders, iterators, variables. Where such a node stands in a loop or in
    a branch, so that it yields nothing or much in a run, the walk stops at what leaves the loop or branch.

    Args:
        view: the fused graph.
        callers: its nodes that the caller's graph has with the same values.
        inputs: per layer to quantize what it reads, and per other node those of its inputs to quantize, as GraphDef
            writes them.
        outputs: nodes that are to be computed as well.

    Returns:
        Full names of tensors of the caller's graph, each once, in the order found.

    Raises:
        ModelError: data comes from inside a function of the caller's graph.
    """
    behind_layers = view.downstream(inputs)
    texts = [text for each in inputs.values() for text in each]
    own = {name for name in view.nodes if _yields_own_data(view, name)}
    ends = _ends(view, own)
    first_inputs = {
        full_tensor_name(text)
        for text in texts
        if (node := parse_tensor_name(text).node) in callers
        and node not in behind_layers
        and node not in view.uncertain_nodes
    }
    sources: dict[str, None] = {}
    visited: set[str] = set()
    waiting = [*texts, *(text for output in outputs for text in view.nodes[output].input)]
    while waiting:
        text = waiting.pop()
        name = parse_tensor_name(text)
        tensor = full_tensor_name(text)
        if name.port == CONTROL or tensor in visited:
            continue
        visited.add(tensor)
        if tensor not in first_inputs and name.node not in own and name.node not in ends:
            waiting.extend(view.nodes[name.node].input)
            continue
        if name.node not in callers:
            raise ModelError(
                f"Node {name.node!r} ({view.nodes[name.node].op}) yields data of its own inside a function, where "
                "calibration cannot see it. Export the model without it."
            )
        sources[tensor] = None
    return list(sources)


def _yields_own_data(view: GraphView, name: str) -> bool:
    """Tells whether a node yields data of its own, that is, values that its inputs do not determine."""
    return _has_own_data(view.nodes[name], view.graph_def.library, frozenset())


def _has_own_data(node: NodeDef, library: FunctionDefLibrary, callers: frozenset[str]) -> bool:
    """Tells the same of a node in a graph or in a function; ``callers`` are the functions around it.

    TensorArrays and stacks have a state, but each run makes it anew. A call has one only if its functions have. A node
    without outputs, such as a NoOp, yields no data.
    """
    if has(node.op, Call):
        called = set(functions_named(node)) - callers
        bodies = [function for function in library.function if function.signature.name in called]
        return any(_has_own_data(each, library, callers | called) for body in bodies for each in body.node_def)
    definition = op_definition(node.op, library)
    yields_nothing = definition is not None and not definition.output_arg
    if yields_nothing or has(node.op, RunState):
        return False
    return yields_own_data(node, library)


def _ends(view: GraphView, own: AbstractSet[str]) -> set[str]:
    """Returns the nodes at which values can be kept in place of given ones.

    Values inside loops and branches are kept where they leave these; lists of tensors, tables and the like where
    numbers come out of them.
    """
    ends = _first_outside(view, own & view.uncertain_nodes, view.uncertain_nodes)
    waiting = [*own, *ends]
    while waiting:
        name = waiting.pop()
        types = list(output_types(view.nodes[name], view.graph_def.library))
        for edge in view.consumers(name):
            port, reader = parse_tensor_name(edge.node.input[edge.input_index]).port, str(edge.node.name)
            stands_for_more = (port < len(types) and types[port] in _NO_NUMBERS) or _is_flow(edge)
            if port != CONTROL and stands_for_more and reader not in ends | view.uncertain_nodes:
                ends.add(reader)
                waiting.append(reader)
    return ends


def _is_flow(edge: Consumer) -> bool:
    """Tells whether an edge brings the number that stands for the state of a TensorArray: its last input."""
    state = trait(edge.node.op, RunState)
    return state is not None and state.takes_flow and edge.input_index == len(data_inputs(edge.node.input)) - 1


def _first_outside(view: GraphView, names: Iterable[str], inside: Collection[str]) -> set[str]:
    """Returns the nodes through which values of nodes inside loops and branches leave these."""
    followers = {edge.node.name for name in view.downstream(names, inside) for edge in view.consumers(name)}
    return followers - set(inside)


def fed_tensors(view: GraphView, tensors: Iterable[str]) -> list[str]:
    """Returns the tensors that the caller feeds for some tensors: full names of placeholders and of iterators' outputs.

    Args:
        view: the caller's graph.
        tensors: full names of tensors of it.
    """
    names = upstream(view.nodes, [parse_tensor_name(tensor).node for tensor in tensors])
    read = {full_tensor_name(text) for name in names for text in data_inputs(view.nodes[name].input)}
    fed = {name for name in names if any(has(view.nodes[name].op, kind) for kind in (Fed, Iterator))}
    return sorted(tensor for tensor in {*read, *tensors} if parse_tensor_name(tensor).node in fed)


def readers_of(view: GraphView, tensor: str, needed: Collection[str]) -> list[str]:
    """Returns the nodes among ``needed`` that read a tensor, given by its full name."""
    name = parse_tensor_name(tensor)
    edges = [edge for edge in view.consumers(name.node) if edge.node.name in needed]
    return list(
        dict.fromkeys(edge.node.name for edge in edges if parse_tensor_name(edge.node.input[edge.input_index]) == name)
    )
