"""Skips nodes that pass their input on.

x --> Identity --> StopGradient --> Conv2D      becomes      x --> Conv2D
"""

from amct_tensorflow.graph.view import GraphView, full_tensor_name
from amct_tensorflow.preparation.prepared import PreparedGraph

_PASSES_ON = frozenset({"Identity", "StopGradient", "PreventGradient", "CheckNumerics"})
# What reads one of these is told by it whether, or how often, it runs; others may wait for it to know.
_TELLS_WHETHER = frozenset({"Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond"})


def skip_identities(graph: PreparedGraph) -> PreparedGraph:
    """Makes the readers of nodes that pass their input on read that input."""
    view = graph.view
    replacements: dict[str, str] = {}
    for node in view.topological():
        if _can_be_skipped(view, node.name) and node.name not in graph.kept:
            source = str(node.input[0])
            replacements[f"{node.name}:0"] = replacements.get(full_tensor_name(source), source)
    if not replacements:
        return graph
    editor = graph.editor()
    editor.replace_tensors(replacements)
    return graph.edited(editor)


def _can_be_skipped(view: GraphView, name: str) -> bool:
    node = view.nodes[name]
    if node.op not in _PASSES_ON or len(node.input) != 1 or name in view.loop_nodes:
        return False
    read_by_data = [edge for edge in view.consumers(name) if not view.is_control(edge)]
    return len(read_by_data) == len(view.consumers(name)) and view.producer(node.input[0]).op not in _TELLS_WHETHER
