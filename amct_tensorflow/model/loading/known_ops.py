"""Which ops of a graph TensorFlow does not know, and what those stand for that other tools have fused.

The converter of TensorFlow.js fuses layers with what follows them, into ops of its own and into ops of TensorFlow's
that lack an attribute. TensorFlow cannot import either.
"""

from collections.abc import Callable

from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework import op_def_registry  # there is no public way to ask

from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import GraphView, attribute
from amct_tensorflow.ops import has, trait
from amct_tensorflow.ops.fused import Fused


def why_not_importable(graph_def: GraphDef) -> str | None:
    """Returns which op TensorFlow does not know, and what to do; None if it knows all of them."""
    functions = {function.signature.name for function in graph_def.library.function}
    for node in (*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)):
        if node.op in functions:
            continue
        if _is_fused_for_others(node):
            fused = b", ".join(attribute(node, "fused_ops").list.s).decode(errors="replace") or "nothing"
            return (
                f"node {node.name!r} ({node.op}) fuses {fused} with a layer, of {len(node.input)} inputs, as neither "
                "TensorFlow nor this tool knows it. Give the model from which it was converted."
            )
        if op_def_registry.get(node.op) is None:
            return (
                f"it needs the op {node.op}, at node {node.name!r}, which this TensorFlow does not know. Load the "
                "library that has it with tf.load_op_library() first, or export the model without it."
            )
    return None


def _is_fused_for_others(node: NodeDef) -> bool:
    """Tells whether a node is a fused op that TensorFlow cannot import, as TensorFlow.js has them."""
    if not has(node.op, Fused):
        return False
    definition = op_def_registry.get(node.op)
    needed = () if definition is None else (each.name for each in definition.attr if not each.HasField("default_value"))
    return definition is None or any(name not in node.attr for name in needed)


def with_known_ops(graph_def: GraphDef) -> GraphDef:
    """Returns a graph in which what fused ops stand for is separate where TensorFlow could not import them.

    The last node of each keeps its name. The graph is the same one if it has no such op.

    Raises:
        ModelError: two nodes have the same name, or an input names a node that is not there.
    """
    return _separated(graph_def, _is_fused_for_others)


def without_fused_ops(graph_def: GraphDef) -> GraphDef:
    """Likewise, with what all fused ops stand for, as other tools know few of TensorFlow's own."""
    return _separated(graph_def, lambda node: has(node.op, Fused))


def _separated(graph_def: GraphDef, is_chosen: Callable[[NodeDef], bool]) -> GraphDef:
    chosen = [node for node in graph_def.node if is_chosen(node)]
    if not chosen:
        return graph_def
    editor = GraphEditor(GraphView(graph_def))
    for node in chosen:
        fused = trait(node.op, Fused)
        for new in (fused and fused.separate(node, editor.unique_name)) or ():
            editor.put(new)
    return editor.graph_def()
