"""Stores a constant whose elements are all the same as one number with the shape of all.

A Fill or a Tile that preparation computes ahead would otherwise stand in the file element by element. Of the numbers
that a TensorProto holds, TensorFlow repeats the last until the shape is full.
"""

from math import prod

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.tensor_pb2 import TensorProto

from amct_tensorflow.graph.view import attribute

# Per type, the field of a TensorProto that holds its numbers, and how NumPy reads one. Halves are stored as their bits.
# Strings and complex numbers, of which one takes several values, stay as they are.
_FIELDS: dict[int, tuple[str, str]] = {
    types_pb2.DT_FLOAT: ("float_val", "<f4"),
    types_pb2.DT_DOUBLE: ("double_val", "<f8"),
    types_pb2.DT_HALF: ("half_val", "<u2"),
    types_pb2.DT_BFLOAT16: ("half_val", "<u2"),
    types_pb2.DT_BOOL: ("bool_val", "?"),
    types_pb2.DT_INT8: ("int_val", "<i1"),
    types_pb2.DT_INT16: ("int_val", "<i2"),
    types_pb2.DT_INT32: ("int_val", "<i4"),
    types_pb2.DT_INT64: ("int64_val", "<i8"),
    types_pb2.DT_UINT8: ("int_val", "<u1"),
    types_pb2.DT_UINT16: ("int_val", "<u2"),
    types_pb2.DT_UINT32: ("uint32_val", "<u4"),
    types_pb2.DT_UINT64: ("uint64_val", "<u8"),
    types_pb2.DT_QINT8: ("int_val", "<i1"),
    types_pb2.DT_QINT16: ("int_val", "<i2"),
    types_pb2.DT_QINT32: ("int_val", "<i4"),
    types_pb2.DT_QUINT8: ("int_val", "<u1"),
    types_pb2.DT_QUINT16: ("int_val", "<u2"),
}


def store_as_numbers(graph_def: GraphDef) -> None:
    """Stores each constant that is all the same as one number, where that is shorter; edits the graph in place."""
    for node in graph_def.node:
        if node.op == "Const":
            tensor = attribute(node, "value").tensor
            short = _as_number(tensor)
            if short is not None and short.ByteSize() < tensor.ByteSize():
                node.attr["value"].tensor.CopyFrom(short)


def _as_number(tensor: TensorProto) -> TensorProto | None:
    """Returns a tensor as one number; None if it has different ones, or none that a field holds bit for bit."""
    if tensor.dtype not in _FIELDS:
        return None
    field, dtype = _FIELDS[tensor.dtype]
    content = tensor.tensor_content  # each access copies it
    size = np.dtype(dtype).itemsize
    first = content[:size]
    if not content or first != content[size : 2 * size]:  # as those of nearly all weights
        return None
    if len(content) != size * prod(axis.size for axis in tensor.tensor_shape.dim):  # which TensorFlow refuses
        return None
    if not np.array_equal(np.frombuffer(content[size:], np.uint8), np.frombuffer(content[:-size], np.uint8)):
        return None
    number = np.frombuffer(first, dtype)[0].item()
    if np.asarray(number, dtype).tobytes() != first:  # a signaling NaN becomes a quiet one on its way through Python
        return None
    short = TensorProto(dtype=tensor.dtype, tensor_shape=tensor.tensor_shape, version_number=tensor.version_number)
    getattr(short, field).append(number)
    return short
