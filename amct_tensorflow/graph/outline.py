"""A graph without its weights, to be asked for shapes and types, and never to be run.

    Const [3, 3, 512, 512] --> Conv2D      becomes      Placeholder [3, 3, 512, 512] --> Conv2D

TensorFlow copies all constants of a graph that it imports, some of them more than once, while shapes follow from small
ones alone.
"""

import math
from pathlib import Path

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.model_file import import_graph
from amct_tensorflow.graph.nodes import make_placeholder
from amct_tensorflow.graph.view import attribute

# The most axes that a tensor of TensorFlow's can have: a longer constant is no shape, nor part of one.
_MOST_AXES = 254


def import_outline(graph_def: GraphDef, source: str | Path) -> tf.Graph:
    """Imports a graph, its weights as placeholders.

    Raises:
        ModelError: TensorFlow refuses the graph; ``source`` names it in the message.
    """
    outline = GraphDef(versions=graph_def.versions, library=graph_def.library)
    outline.node.extend(map(without_weights, graph_def.node))
    return import_graph(outline, source)


def without_weights(node: NodeDef) -> NodeDef:
    """Returns a placeholder of the same name, type and shape for a Const that holds weights; any other node itself."""
    if node.op != "Const":
        return node
    tensor = attribute(node, "value").tensor
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    return node if math.prod(shape) <= _MOST_AXES else make_placeholder(node.name, tf.as_dtype(tensor.dtype), shape)
