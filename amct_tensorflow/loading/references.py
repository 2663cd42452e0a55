"""Ops on references to variables, as TensorFlow 1 wrote them, in graphs whose variables become constants."""

from tensorflow.core.framework.graph_pb2 import GraphDef

# What they do with the value of a reference, these do with a value.
_OF_VALUES = {
    "RefEnter": "Enter",
    "RefExit": "Exit",
    "RefIdentity": "Identity",
    "RefMerge": "Merge",
    "RefNextIteration": "NextIteration",
    "RefSwitch": "Switch",
}


def pass_values(graph_def: GraphDef) -> None:
    """Lets a graph pass values on where it passes references; it must not write to them."""
    for node in graph_def.node:
        node.op = _OF_VALUES.get(node.op, node.op)
