"""Rewrites a chain of clips at 0 and above it in one form.

    Relu --> Minimum(6) --> Maximum(0)       becomes      Relu6
    Minimum(4) --> Relu                      becomes      Relu --> Minimum(4)
    Maximum(0)                               becomes      Relu

The first MobileNets of Keras clip so. Quantizers clip, too: this form shows where they repeat a clip, so that no value
is rounded before it is clipped.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.names import PreparedName
from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import attribute
from amct_tensorflow.model.preparation.prepared import Origins, PreparedGraph
from amct_tensorflow.ops.clips import NO_CLIP, Clip
from amct_tensorflow.ops.effects import as_clip


class _Chain(NamedTuple):
    """Clips, each of which alone reads the one before it; the first of them first, what they do, and to what."""

    nodes: tuple[NodeDef, ...]
    clip: Clip
    source: str


def merge_clips(graph: PreparedGraph) -> PreparedGraph:
    """Rewrites every chain of clips that clips at 0 and above it."""
    editor = graph.editor()
    origins: Origins = {}
    for node in graph.view.graph_def.node:
        chain = _chain(graph, node)
        if chain is None or _goes_on(graph, node):
            continue
        wanted = _ops(chain.clip)
        if wanted is not None and wanted != tuple(str(each.op) for each in chain.nodes):
            new = _write(editor, str(node.name), chain, wanted)
            origins |= dict.fromkeys(new, graph.originals_of(PreparedName(each.name) for each in chain.nodes))
    return graph.edited(editor, origins) if origins else graph


def _chain(graph: PreparedGraph, last: NodeDef) -> _Chain | None:
    """Returns the longest chain that ends in a node; None if the node does not clip."""
    nodes: tuple[NodeDef, ...] = ()
    together, node, source = NO_CLIP, last, ""
    while (found := _clip(graph, node)) is not None:
        clip, source = found
        nodes, together = (node, *nodes), clip.then(together)
        node = graph.view.producer(source)
        if not _is_read_once(graph, node):
            break
    return _Chain(nodes, together, source) if nodes else None


def _clip(graph: PreparedGraph, node: NodeDef) -> tuple[Clip, str] | None:
    """Returns how a node clips, and what; None if it does something else, or may run never or more than once."""
    is_float32 = attribute(node, "T").type == tf.float32.as_datatype_enum
    if not is_float32 or node.name in graph.view.loop_nodes or any(text.startswith("^") for text in node.input):
        return None
    return as_clip(node, lambda text: _scalar(graph, node, text))


def _scalar(graph: PreparedGraph, node: NodeDef, text: str) -> np.ndarray | None:
    """Returns a constant, as a scalar where it has a single element and gives its node's result no more axes."""
    constant = graph.view.constant(text)
    if constant is None or constant.size != 1 or constant.ndim == 0:
        return constant
    shapes = [graph.shaped.shape(other) for other in node.input if other != text and graph.view.constant(other) is None]
    fits = all(shape is not None and constant.ndim <= len(shape) for shape in shapes)
    return constant.reshape(()) if fits else constant


def _is_read_once(graph: PreparedGraph, node: NodeDef) -> bool:
    return node.name not in graph.kept and len(graph.view.consumers(node.name)) == 1


def _goes_on(graph: PreparedGraph, node: NodeDef) -> bool:
    """Tells whether the only reader of a node is a clip."""
    if not _is_read_once(graph, node):
        return False
    (edge,) = graph.view.consumers(node.name)
    return _clip(graph, edge.node) is not None


def _ops(clip: Clip) -> tuple[str, ...] | None:
    """Returns the op types of the one form of a clip; None if there is none."""
    if clip.lowest != 0 or clip.highest <= 0:
        return None
    return {np.inf: ("Relu",), 6.0: ("Relu6",)}.get(clip.highest, ("Relu", "Minimum"))


def _write(editor: GraphEditor, name: str, chain: _Chain, ops: tuple[str, ...]) -> list[str]:
    """Writes the one form of a chain, the last node of which has a name; returns its nodes."""
    if len(ops) == 1:
        editor.replace_node(make_node(name, ops[0], [chain.source], T=tf.float32))
        return [name]
    relu = make_node(editor.unique_name(f"{name}/{ops[0]}"), ops[0], [chain.source], T=tf.float32)
    limit = make_const(editor.unique_name(f"{name}/limit"), np.array(chain.clip.highest, np.float32))
    added = [editor.add(each, like=name) for each in (relu, limit)]
    editor.replace_node(make_node(name, ops[1], added, T=tf.float32))
    return [*added, name]
