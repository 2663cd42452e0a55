"""Lets equal constants of a quantized graph stand once, under short names.

    strided_slice/stack   = [0], strided_slice_1/stack   = [0], ...
                                                                         become      k0 = [0], k1 = [1]
    strided_slice/stack_1 = [1], strided_slice_1/stack_1 = [1], ...

A graph of a network has hundreds of such constants, each of which takes more for its name, and for the same name at the
node that reads it, than for its value. What the graph computes stays the same. A larger constant that is unlike all
others keeps its name, by which a user may look for weights that are still floats.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import count
from math import prod

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import attribute, parse_tensor_name

# Shapes, axes and paddings have no more elements.
_FEW = 8


def share_constants(graph_def: GraphDef, scope: str, keep: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Makes one constant of equal ones, and gives it a short name if that is shorter; edits the graph in place.

    Constants that wait for another node, or that another node waits for, stay as they are.

    Args:
        graph_def: the graph.
        scope: of the names, without a slash.
        keep: nodes that stay, with their names.

    Returns:
        Per new name, the names of the constants that it stands for.
    """
    names = _short_names(scope, {str(node.name) for node in graph_def.node} | set(keep))
    waited = {parse_tensor_name(text).node for node in graph_def.node for text in node.input if text.startswith("^")}
    alike: dict[tuple[str, bytes], list[NodeDef]] = defaultdict(list)
    for node in graph_def.node:
        if node.op == "Const" and not node.input and node.name not in keep and node.name not in waited:
            alike[str(node.device), _digest(node)].append(node)
    made: dict[str, tuple[str, ...]] = {}
    for nodes in alike.values():
        if len(nodes) > 1 or _is_small(nodes[0]):
            short = next(names)
            if len(nodes) > 1 or len(short) < len(nodes[0].name):
                made[short] = tuple(str(node.name) for node in nodes)
    _replace(graph_def, made)
    return made


def _short_names(scope: str, taken: Collection[str]) -> Iterator[str]:
    return (name for number in count() if (name := f"{scope}/k{number}") not in taken)


def _digest(const: NodeDef) -> bytes:
    """Returns what is equal for equal constants; zeros of either sign, and NaNs, are unlike."""
    return hashlib.blake2b(attribute(const, "value").tensor.SerializeToString(deterministic=True)).digest()


def _is_small(const: NodeDef) -> bool:
    """Tells whether a constant is a number, or a few integers, as shapes and axes are."""
    tensor = attribute(const, "value").tensor
    size = prod(axis.size for axis in tensor.tensor_shape.dim)
    return bool(size == 1 or (size <= _FEW and tf.dtypes.as_dtype(tensor.dtype).is_integer))


def _replace(graph_def: GraphDef, made: dict[str, tuple[str, ...]]) -> None:
    """Renames the first of each group of constants, and removes the others."""
    short = {name: other for other, names in made.items() for name in names}
    first = {names[0] for names in made.values()}
    for index in reversed(range(len(graph_def.node))):
        name = graph_def.node[index].name
        if name in short and name not in first:
            del graph_def.node[index]
    for node in graph_def.node:
        node.name = short.get(node.name, node.name)
        for index, text in enumerate(node.input):
            source = parse_tensor_name(text).node  # nothing waits for one of them
            if source in short:
                node.input[index] = short[source]
