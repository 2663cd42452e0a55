"""The static shapes of a graph for one image.

Where a graph takes any number of images, TensorFlow does not know how many rows or patches they become on the way. For
one image it does. Nor does it know what goes round in a loop; here shapes are those of the first round.
"""

from collections.abc import Collection

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.model_file import import_graph
from amct_tensorflow.graph.nodes import make_node, make_placeholder
from amct_tensorflow.graph.outline import without_weights
from amct_tensorflow.graph.view import GraphView, Shape, attribute, static_shapes

_LOOP = frozenset({"Enter", "RefEnter", "Exit", "RefExit", "NextIteration", "RefNextIteration"})


def one_image_shapes(view: GraphView, names: Collection[str], images: int = 1) -> dict[str, Shape] | None:
    """Infers shapes as they are when the first axis of every input, if it has any length, has the length 1.

    Args:
        view: the graph.
        names: its nodes of which to infer the shapes, and all that they depend on.
        images: another length.

    Returns:
        What is known of the shapes of tensors, by full name; None if the graph contradicts that length.
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
    """Returns what tells the shapes of a node, without weights, numbers of images, and what goes round in loops."""
    if node.op in ("Placeholder", "PlaceholderWithDefault"):
        shape = tf.TensorShape(attribute(node, "shape").shape if "shape" in node.attr else None)
        if shape.rank and shape[0] is None:
            return make_placeholder(node.name, tf.as_dtype(attribute(node, "dtype").type), [images, *shape[1:]])
    if node.op in _LOOP or view.closes_loop(node):
        return make_node(node.name, "Identity", node.input[:1], T=attribute(node, "T"))
    copy = NodeDef()
    copy.CopyFrom(without_weights(node))
    for hint in ("_class", "_output_shapes"):  # they may name nodes, or tell shapes, that are not so here
        if hint in copy.attr:
            del copy.attr[hint]
    return copy
