"""Takes the weights out of a graph: placeholders stand in their place, which they can be fed to.

    Const [3, 3, 512, 512] --> Conv2D      becomes      Placeholder [3, 3, 512, 512] --> Conv2D

TensorFlow copies all constants of a graph that it imports, again when a session takes the graph, and again for each set
of fetches. What is fed is copied nowhere if it begins where TensorFlow would put it, as values of ``const_value`` do.
"""

import math
from collections.abc import Collection, Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.nodes import make_placeholder
from amct_tensorflow.graph.view import attribute, const_value, is_aligned

# The most axes that a tensor of TensorFlow's can have: a longer constant is no shape, nor part of one.
_MOST_AXES = 254
# Kinds of NumPy's types: bool, integers, floats, complex numbers.
_NUMBERS = "biufc"


def without_weights(node: NodeDef) -> NodeDef:
    """Returns a placeholder of the same name, type and shape for a Const with weights; any other node unchanged."""
    if node.op != "Const":
        return node
    tensor = attribute(node, "value").tensor
    shape = [axis.size for axis in tensor.tensor_shape.dim]
    return node if math.prod(shape) <= _MOST_AXES else make_placeholder(node.name, tf.as_dtype(tensor.dtype), shape)


def take_weights_out(
    graph_def: GraphDef, names: Collection[str], known: Mapping[str, np.ndarray] | None = None
) -> tuple[GraphDef, dict[str, np.ndarray]]:
    """Returns some nodes of a graph with placeholders for their weights, and the weights by the names of those.

    A Const that waits for another node stays: it belongs to a loop or branch, where nothing can be fed. So does one of
    texts, or of a type that NumPy does not have.

    Args:
        graph_def: the graph.
        names: its nodes that are asked for, with all that they depend on.
        known: values of some of the Consts, which are shared if TensorFlow takes them without a copy.
    """
    shared = {name: values for name, values in (known or {}).items() if is_aligned(values)}
    rest = GraphDef(versions=graph_def.versions, library=graph_def.library)
    weights: dict[str, np.ndarray] = {}
    for node in graph_def.node:
        if node.name not in names:
            continue
        plain = node if node.input else without_weights(node)
        if plain is not node and (values := _value_of(node, shared)).dtype.kind in _NUMBERS:
            weights[str(node.name)] = values
            rest.node.append(plain)
        else:
            rest.node.append(node)
    return rest, weights


def _value_of(node: NodeDef, known: Mapping[str, np.ndarray]) -> np.ndarray:
    values = known.get(node.name)
    return const_value(node) if values is None else values
