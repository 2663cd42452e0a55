"""Drops control edges that only order.

    NoOp <-^- weights, statistics, ...                      x --> Identity
      |                                         becomes
      +-^-> Identity <-- x

A control edge means something if what waits for it has a side effect to wait for, or if it tells in which branch or
loop a node runs. Others keep alive what nothing reads: Keras makes its outputs wait for every variable.
"""

from amct_tensorflow.graph.op_definitions import is_stateful
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, parse_tensor_name
from amct_tensorflow.preparation.prepared import PreparedGraph

# What yields data, but does nothing that another node would have to wait for.
_SOURCES = frozenset({"Placeholder", "PlaceholderWithDefault", "Const"})
_CONTROL_FLOW = frozenset({"Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond", "If", "While"})


def drop_ordering(graph: PreparedGraph) -> PreparedGraph:
    """Drops the control edges that only order."""
    meaningful = _meaningful_to_wait_for(graph.view)
    editor = GraphEditor(graph.view)
    changed = False
    for name, node in graph.view.nodes.items():
        inputs = [text for text in node.input if not text.startswith("^") or parse_tensor_name(text).node in meaningful]
        if len(inputs) < len(node.input):
            editor.replace_inputs(name, inputs)
            changed = True
    return graph.edited(editor) if changed else graph


def _meaningful_to_wait_for(view: GraphView) -> set[str]:
    """Returns the nodes that have a side effect or depend on control flow, or on which something of the kind stands."""
    found: set[str] = set()
    waiting = [
        node.name
        for node in view.nodes.values()
        if node.op in _CONTROL_FLOW or (node.op not in _SOURCES and is_stateful(node.op, view.graph_def.library))
    ]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(consumer.node.name for consumer in view.consumers(name))
    return found
