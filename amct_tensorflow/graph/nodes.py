"""Makes nodes, and the barrier that keeps TensorFlow from fusing a layer with the node behind it.

    Conv2D -> BiasAdd            TensorFlow's optimizer makes one op of the two, which does not know groups on a CPU
    Conv2D -> Snapshot -> BiasAdd

TensorFlow 2.16 to 2.21 convolve in groups, but refuse to do it fused ("Fused conv implementation does not support
grouped convolutions for now"). A Snapshot passes a tensor on as it is, and no optimization of TensorFlow's sees through
it; ATC's graph engine has a pass that takes it out again, so that the bias stands behind the convolution there.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView

Attr: TypeAlias = attr_value_pb2.AttrValue
AttrLike: TypeAlias = bool | int | float | str | tf.DType | np.ndarray | Sequence[int] | Attr


def attr_value(value: AttrLike) -> Any:
    """Wraps a Python value as a node attribute; an array becomes a tensor, a ``tf.DType`` a type."""
    if isinstance(value, attr_value_pb2.AttrValue):
        return value
    if isinstance(value, tf.DType):
        return Attr(type=value.as_datatype_enum)
    if isinstance(value, np.ndarray):
        return Attr(tensor=tf.make_tensor_proto(value))
    if isinstance(value, str):
        return Attr(s=value.encode())
    scalar_fields = {bool: "b", int: "i", float: "f"}
    return Attr(**{scalar_fields[type(value)]: value}) if type(value) in scalar_fields else Attr(list={"i": value})


def make_node(name: str, op: str, inputs: Sequence[str], **attrs: AttrLike) -> NodeDef:
    """Makes a NodeDef."""
    node = NodeDef(name=name, op=op, input=inputs)
    for key, value in attrs.items():
        node.attr[key].CopyFrom(attr_value(value))
    return node


def make_placeholder(name: str, dtype: tf.DType, shape: Sequence[int | None]) -> NodeDef:
    """Makes a Placeholder."""
    return make_node(name, "Placeholder", (), dtype=dtype, shape=Attr(shape=tf.TensorShape(shape).as_proto()))


def make_const(name: str, value: np.ndarray) -> NodeDef:
    """Makes a Const node holding ``value``."""
    return make_node(name, "Const", (), dtype=tf.as_dtype(value.dtype), value=value)


BARRIER = "Snapshot"


def make_barrier(name: str, tensor: str) -> NodeDef:
    """Makes a barrier behind a float32 tensor."""
    return make_node(name, BARRIER, [tensor], T=tf.float32)


def behind_barrier(view: GraphView, node: NodeDef) -> NodeDef:
    """Returns the barrier that alone reads a node, or the node itself if there is none."""
    readers = view.readers(node.name)
    return readers[0] if len(readers) == 1 and readers[0].op == BARRIER else node
