"""Leaves out shape ops that undo each other.

x --> Squeeze(axis) --> ExpandDims(axis) --> y        becomes      x --> y
x --> ExpandDims(axis) --> Squeeze(axis) --> y        becomes      x --> y
x --> Reshape(s) --> Reshape(t) --> y                 becomes      x --> Reshape(t) --> y
"""

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, attribute, full_tensor_name
from amct_tensorflow.model.preparation.prepared import PreparedGraph
from amct_tensorflow.ops import trait
from amct_tensorflow.ops.traits import Moves


def cancel_reshapes(graph: PreparedGraph) -> PreparedGraph:
    """Leaves out pairs of shape ops that undo each other, and the first of two Reshapes.

    What waits for something, or is waited for, stays: it may tell in which branch it runs.
    """
    view = graph.view
    editor = graph.editor()
    undone: dict[str, str] = {}
    merged = False
    for node in view.topological():
        before = _shape_op_before(view, node)
        if before is None or node.name in view.loop_nodes:
            continue
        can_go = node.name not in graph.kept and not any(map(view.is_control, view.consumers(node.name)))
        if can_go and _undo_each_other(view, before, node):
            source = str(before.input[0])
            undone[f"{node.name}:0"] = undone.get(full_tensor_name(source), source)
        elif node.op == before.op == "Reshape":
            editor.replace_input(node.name, 0, before.input[0])
            merged = True
    if not undone and not merged:
        return graph
    editor.replace_tensors(undone)
    return graph.edited(editor)


def _shape_op_before(view: GraphView, node: NodeDef) -> NodeDef | None:
    """Returns the shape op before a shape op, None if one of the two is something else or waits for something."""
    if not _is_shape_op(node):
        return None
    before = view.producer(node.input[0])
    return before if _is_shape_op(before) else None


def _is_shape_op(node: NodeDef) -> bool:
    moves = trait(node.op, Moves)
    return moves is not None and moves.keeps_order and not any(text.startswith("^") for text in node.input)


def _undo_each_other(view: GraphView, first: NodeDef, second: NodeDef) -> bool:
    squeeze, expand = (first, second) if first.op == "Squeeze" else (second, first)
    if squeeze.op != "Squeeze" or expand.op != "ExpandDims":
        return False
    squeezed = list(attribute(squeeze, "squeeze_dims").list.i)
    axis = view.constant(expand.input[1])
    # Negative axes count from the end of tensors of different rank: only equal non-negative ones are sure to match.
    return axis is not None and axis.size == 1 and int(axis) >= 0 and squeezed == [int(axis)]
