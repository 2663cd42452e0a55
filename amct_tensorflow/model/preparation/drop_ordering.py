"""Drops control edges that only order.

    NoOp <-^- weights, statistics, ...                      x --> Identity
      |                                         becomes
      +-^-> Identity <-- x

A control edge has a meaning if the node that it waits for affects values, or if it tells in which branch or loop a node
runs. Others keep unread nodes alive: Keras makes its outputs wait for every variable, and for every loop. Checks and
messages do not affect values either, and are dropped with the edges to them.
"""

from tensorflow.core.framework.function_pb2 import FunctionDefLibrary
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.op_definitions import functions_named, is_stateful
from amct_tensorflow.graph.view import GraphView, parse_tensor_name
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.model.preparation.prepared import PreparedGraph
from amct_tensorflow.ops import has
from amct_tensorflow.ops.traits import Call, Fed, Observer


def drop_ordering(graph: PreparedGraph) -> PreparedGraph:
    """Drops the control edges that only order."""
    meaningful = _meaningful_to_wait_for(graph.view)
    editor = graph.editor()
    changed = False
    for name, node in graph.view.nodes.items():
        inputs = [text for text in node.input if not text.startswith("^") or parse_tensor_name(text).node in meaningful]
        if len(inputs) < len(node.input):
            editor.replace_inputs(name, inputs)
            changed = True
    if not changed:
        return graph
    dropped = graph.edited(editor)
    checks = sum(has(node.op, Observer) and name not in dropped.view.nodes for name, node in graph.view.nodes.items())
    if checks:
        log_for("preparation").info(
            "%s left out, which checks or prints values (Assert, Print).", plural(checks, "node", "is", "are")
        )
    return dropped


def _meaningful_to_wait_for(view: GraphView) -> set[str]:
    """Returns the nodes inside loops and branches, the nodes with an effect, and the nodes behind one."""
    library = view.graph_def.library
    effects = [node.name for node in view.nodes.values() if _has_effect(node, library, frozenset())]
    return view.downstream(effects) | view.uncertain_nodes


def _has_effect(node: NodeDef, library: FunctionDefLibrary, within: frozenset[str]) -> bool:
    """Tells whether a node may do more than its outputs tell; ``within`` are the functions it stands in."""
    called = {name for name in functions_named(node) if name != node.op}
    if not has(node.op, Call) and not called:
        return is_stateful(node.op, library) and not (has(node.op, Fed) or has(node.op, Observer))
    functions = {function.signature.name: function for function in library.function}
    return bool(called & within) or any(
        name not in functions or any(_has_effect(inner, library, within | called) for inner in functions[name].node_def)
        for name in called
    )
