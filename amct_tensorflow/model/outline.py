"""Imports a graph without its weights, and infers its static shapes.

    Const [3, 3, 512, 512] --> Conv2D      becomes      Placeholder [3, 3, 512, 512] --> Conv2D

TensorFlow copies all constants of a graph that it imports, some of them more than once, while shapes follow from small
ones alone.

If a graph takes any number of images, TensorFlow cannot tell how many rows or patches they become on the way; for one
image it can. It cannot tell the shapes of loop variables either; here they are those of the first round.
"""

from collections.abc import Collection
from pathlib import Path

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.nodes import make_node, make_placeholder
from amct_tensorflow.graph.view import GraphView, Shape, attribute, static_shapes
from amct_tensorflow.graph.weights import without_weights
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.ops import has, trait
from amct_tensorflow.ops.traits import ControlFlow, Fed

_OF_LOOPS = (ControlFlow.ENTER, ControlFlow.EXIT, ControlFlow.NEXT_ITERATION)


def import_outline(graph_def: GraphDef, source: str | Path) -> tf.Graph:
    """Imports a graph with placeholders in place of its weights.

    Raises:
        ModelError: TensorFlow refuses the graph; ``source`` names it in the message.
    """
    outline = GraphDef(versions=graph_def.versions, library=graph_def.library)
    outline.node.extend(map(without_weights, graph_def.node))
    return import_graph(outline, source)


def one_image_shapes(view: GraphView, names: Collection[str], images: int = 1) -> dict[str, Shape] | None:
    """Infers shapes with a first axis of length 1 in every input that leaves it open.

    Args:
        view: the graph.
        names: the nodes whose shapes to infer, and all that they depend on.
        images: another length.

    Returns:
        The known shapes of tensors, by full name; None if the graph contradicts that length.
    """
    skeleton = GraphDef()
    skeleton.versions.CopyFrom(view.graph_def.versions)
    skeleton.library.CopyFrom(view.graph_def.library)
    skeleton.node.extend(_outline(view, node, images) for name, node in view.nodes.items() if name in names)
    try:
        return static_shapes(import_graph(skeleton, "the graph"))
    except ModelError:
        return None


def _outline(view: GraphView, node: NodeDef, images: int) -> NodeDef:
    """Returns a node for shape inference: without weights, without a number of images, and outside its loop."""
    if has(node.op, Fed):
        shape = tf.TensorShape(attribute(node, "shape").shape if "shape" in node.attr else None)
        lengths = shape.as_list() if shape.rank else [0]
        if lengths[0] is None:
            return make_placeholder(node.name, tf.as_dtype(attribute(node, "dtype").type), [images, *lengths[1:]])
    if trait(node.op, ControlFlow) in _OF_LOOPS or view.closes_loop(node):
        return make_node(node.name, "Identity", node.input[:1], T=attribute(node, "T"))
    copy = NodeDef()
    copy.CopyFrom(without_weights(node))
    for hint in ("_class", "_output_shapes"):  # they may name nodes, or tell shapes, that are not so here
        if hint in copy.attr:
            del copy.attr[hint]
    return copy
