"""Tells what does not follow from inputs, or from constants, alone."""

from tensorflow.core.framework.function_pb2 import FunctionDefLibrary
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.op_definitions import is_stateful
from amct_tensorflow.graph.view import GraphView, data_inputs
from amct_tensorflow.ops.op_table import has, trait
from amct_tensorflow.ops.traits import ControlFlow, Fed, Identity


def follows_from_inputs(node: NodeDef, library: FunctionDefLibrary) -> bool:
    """Tells whether a node yields the same in every run in which it reads the same."""
    return not (has(node.op, Fed) or is_stateful(node.op, library))


def yields_own_data(node: NodeDef, library: FunctionDefLibrary) -> bool:
    """Tells whether a node yields data from outside the graph, or from a state: what is fed, read or drawn."""
    return node.op != "Const" and not (data_inputs(node.input) and follows_from_inputs(node, library))


def varying_nodes(view: GraphView) -> frozenset[str]:
    """Returns the nodes whose values depend on data, on chance, on a state, or on how often a loop has run.

    What passes a constant on in a branch, or into a loop, does not vary: it yields that constant or nothing.
    """
    waiting = [str(node.name) for node in view.nodes.values() if _is_source(view, node)]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            edges = (edge for edge in view.consumers(name) if not view.is_control(edge))
            waiting.extend(str(edge.node.name) for edge in edges if not (_is_switch(edge.node) and edge.input_index))
    return frozenset(found)


def _is_source(view: GraphView, node: NodeDef) -> bool:
    if trait(node.op, ControlFlow) is ControlFlow.NEXT_ITERATION:
        return not _hands_on(view, node)
    return yields_own_data(node, view.graph_def.library)


def _is_switch(node: NodeDef) -> bool:
    return trait(node.op, ControlFlow) is ControlFlow.SWITCH


def _hands_on(view: GraphView, next_iteration: NodeDef) -> bool:
    """Tells whether a value goes round in a loop as it is."""
    node = view.producer(next_iteration.input[0])
    while has(node.op, Identity) or _is_switch(node):
        node = view.producer(node.input[0])
    return view.closes_loop(node) and next_iteration.name in node.input
