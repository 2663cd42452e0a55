"""Writes every op that stands for a layer and what follows it as these.

    _FusedConv2D(x, w, b), fused_ops: BiasAdd, Relu      becomes      Conv2D --> BiasAdd --> Relu

Graphs hold them that TensorFlow has optimized before they were frozen. The last node keeps the name. A configuration
may call the layer by that name, too, which is the one in the model's file.
"""

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.names import OriginalName
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.model.preparation.prepared import Origins, PreparedGraph
from amct_tensorflow.ops import OP_TYPES, trait
from amct_tensorflow.ops.fused import Fused


def unfuse(graph: PreparedGraph) -> PreparedGraph:
    """Separates all of them outside of loops, in which TensorFlow lets no constant be added."""
    editor = graph.editor()
    origins: Origins = {}
    renamed: dict[str, OriginalName] = {}
    for node in graph.view.graph_def.node:
        if node.name in graph.view.loop_nodes:
            continue
        new = _separate(editor, node)
        origins |= dict.fromkeys((each.name for each in new), graph.original_names(node.name))
        layers = (each.name for each in new if each.op in OP_TYPES and each.name != node.name)
        renamed |= dict.fromkeys(layers, OriginalName(node.name))
    return graph.edited(editor, origins, renamed) if origins else graph


def _separate(editor: GraphEditor, node: NodeDef) -> list[NodeDef]:
    """Puts what a node stands for in its place; returns these nodes, none if it stands for itself alone."""
    fused = trait(node.op, Fused)
    separate = None if fused is None else fused.separate(node, editor.unique_name)
    for new in separate or ():
        new.device = node.device
        editor.put(new)
    return separate or []
