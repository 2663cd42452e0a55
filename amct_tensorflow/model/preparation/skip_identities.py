"""Skips nodes that pass their input on.

x --> Identity --> StopGradient --> Conv2D      becomes      x --> Conv2D
x --> IdentityN --> Conv2D                      becomes      x --> Conv2D
y ----^       ----> Relu                                     y --> Relu

So are those that show or check it on its way, as ``drop_ordering`` does with what stands beside it, and a barrier that
the model brings along: where one is needed, preparation puts it.
"""

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.nodes import BARRIER
from amct_tensorflow.graph.view import GraphView, full_tensor_name
from amct_tensorflow.model.preparation.prepared import PreparedGraph
from amct_tensorflow.ops import has, trait
from amct_tensorflow.ops.traits import ControlFlow, Identity


def skip_identities(graph: PreparedGraph) -> PreparedGraph:
    """Makes the readers of nodes that pass their input on read that input."""
    view = graph.view
    replacements: dict[str, str] = {}
    for node in view.topological():
        if node.name in graph.kept or (node.op == BARRIER and node.name not in graph.original):
            continue
        if _can_be_skipped(view, node.name):
            for port, text in enumerate(_passed_on(node)):
                replacements[f"{node.name}:{port}"] = replacements.get(full_tensor_name(text), text)
    if not replacements:
        return graph
    editor = graph.editor()
    editor.replace_tensors(replacements)
    return graph.edited(editor)


def _passed_on(node: NodeDef) -> list[str]:
    """Returns the inputs that a node passes on, in the order of its outputs; none if it does more than that."""
    identity = trait(node.op, Identity)
    return identity.passed_on(node) if identity is not None else []


def _can_be_skipped(view: GraphView, name: str) -> bool:
    node = view.nodes[name]
    if not _passed_on(node) or name in view.loop_nodes or any(text.startswith("^") for text in node.input):
        return False
    if any(map(view.is_control, view.consumers(name))):
        return False
    # Others may wait for it to know whether, or how often, they run.
    return not any(has(view.producer(text).op, ControlFlow) for text in _passed_on(node))
