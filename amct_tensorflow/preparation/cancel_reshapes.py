"""Leaves out shape ops that undo each other.

x --> Squeeze(axis) --> ExpandDims(axis) --> y        becomes      x --> y
x --> ExpandDims(axis) --> Squeeze(axis) --> y        becomes      x --> y
x --> Reshape(s) --> Reshape(t) --> y                 becomes      x --> Reshape(t) --> y
"""

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, attribute, full_tensor_name, parse_tensor_name
from amct_tensorflow.preparation.prepared import PreparedGraph


def cancel_reshapes(graph: PreparedGraph) -> PreparedGraph:
    """Leaves out pairs of shape ops that undo each other, and the first of two Reshapes."""
    view = graph.view
    editor = GraphEditor(view)
    undone: dict[str, str] = {}
    merged = False
    for node in view.topological():
        if not node.input or node.name in view.loop_nodes:
            continue
        before = view.producer(node.input[0])
        if parse_tensor_name(node.input[0]).port != 0:
            continue
        if node.name not in graph.kept and _undo_each_other(view, before, node):
            source = str(before.input[0])
            undone[f"{node.name}:0"] = undone.get(full_tensor_name(source), source)
        elif node.op == before.op == "Reshape":
            editor.replace_input(node.name, 0, _before_reshapes(view, before))
            merged = True
    if not undone and not merged:
        return graph
    editor.replace_tensors(undone)
    return graph.edited(editor)


def _undo_each_other(view: GraphView, first: NodeDef, second: NodeDef) -> bool:
    if {first.op, second.op} != {"Squeeze", "ExpandDims"}:
        return False
    squeeze, expand = (first, second) if first.op == "Squeeze" else (second, first)
    squeezed = list(attribute(squeeze, "squeeze_dims").list.i)
    axis = view.constant(expand.input[1])
    # Negative axes count from the end of tensors of different rank: only equal non-negative ones are sure to match.
    return axis is not None and axis.size == 1 and int(axis) >= 0 and squeezed == [int(axis)]


def _before_reshapes(view: GraphView, node: NodeDef) -> str:
    while view.producer(node.input[0]).op == "Reshape":
        node = view.producer(node.input[0])
    return str(node.input[0])
