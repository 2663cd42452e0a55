"""Whether TensorFlow knows the ops of a graph."""

from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.python.framework import op_def_registry  # there is no public way to ask


def obstacle_to_import(graph_def: GraphDef) -> str | None:
    """Returns which op TensorFlow does not know, and what to do; None if it knows all of them."""
    functions = {function.signature.name for function in graph_def.library.function}
    for node in (*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)):
        if node.op not in functions and op_def_registry.get(node.op) is None:
            return (
                f"it needs the op {node.op}, at node {node.name!r}, which this TensorFlow does not know. Load the "
                "library that has it with tf.load_op_library() first, or export the model without it."
            )
    return None
