"""What keeps TensorFlow from fusing a layer with the node behind it.

    Conv2D -> BiasAdd            TensorFlow's optimizer makes one op of the two, which does not know groups on a CPU
    Conv2D -> Snapshot -> BiasAdd

TensorFlow 2.16 to 2.21 convolve in groups, but refuse to do it fused ("Fused conv implementation does not support
grouped convolutions for now"). A Snapshot passes a tensor on as it is, and no optimization of TensorFlow's sees through
it; ATC's graph engine has a pass that takes it out again, so that the bias stands behind the convolution there.
"""

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.nodes import make_node
from amct_tensorflow.graph.view import GraphView

BARRIER = "Snapshot"


def make_barrier(name: str, tensor: str) -> NodeDef:
    """Makes a barrier behind a float32 tensor."""
    return make_node(name, BARRIER, [tensor], T=tf.float32)


def behind_barrier(view: GraphView, node: NodeDef) -> NodeDef:
    """Returns the barrier that alone reads a node, or the node itself if there is none."""
    readers = [edge.node for edge in view.consumers(node.name) if not view.is_control(edge)]
    return readers[0] if len(readers) == 1 and readers[0].op == BARRIER else node
