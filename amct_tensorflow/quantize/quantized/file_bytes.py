"""Tells what the bytes of a quantized model's file are."""

from math import prod

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, attribute
from amct_tensorflow.quantize.quantized.ascend_ops import DEQUANT
from amct_tensorflow.quantize.quantized.model_files import FileContent


def content_of(graph_def: GraphDef) -> FileContent:
    """Returns what the bytes of a quantized model are, as it stands in its file."""
    view = GraphView(graph_def)
    weights, floats, others, names = 0, 0, 0, 0
    for node in graph_def.node:
        names += len(str(node.name).encode()) + sum(len(str(text).encode()) for text in node.input)
        if node.op == "Const":
            tensor = attribute(node, "value").tensor
            size, dtype = tensor.ByteSize(), tf.dtypes.as_dtype(tensor.dtype)
            if dtype == tf.int8:
                weights += size
            elif (
                dtype.is_floating
                and prod(axis.size for axis in tensor.tensor_shape.dim) > 1
                and not _is_bias(view, node)
            ):
                floats += size
            else:
                others += size
    return FileContent(weights, floats, others, names, graph_def.ByteSize() - weights - floats - others - names)


def _is_bias(view: GraphView, const: NodeDef) -> bool:
    """Tells whether a constant is the bias of layers in int8, which is integers."""
    readers = view.readers(const.name)
    return bool(readers) and all(
        reader.op == "BiasAdd" and any(_leads_to_dequantizer(view, each) for each in view.readers(reader.name))
        for reader in readers
    )


def _leads_to_dequantizer(view: GraphView, node: NodeDef) -> bool:
    """Tells whether a node is an AscendDequant, or the Cast in front of one."""
    return node.op == DEQUANT or (node.op == "Cast" and any(each.op == DEQUANT for each in view.readers(node.name)))
