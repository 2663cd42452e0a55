"""Gives the constants of a TensorFlow.js graph their values, which stand among the weights of the model."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.tensor_pb2 import TensorProto

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.view import attribute

_CONVERT_AGAIN = "Convert the model again, or give the one from which it was converted."


def fill_in(file: Path, graph_def: GraphDef, weights: Mapping[str, np.ndarray], *, shared: bool) -> None:
    """Gives constants their values; TensorFlow.js has int32 for int64 as well, and float32 for all floats.

    Args:
        file: the model's JSON file.
        graph_def: the graph, whose constants are changed.
        weights: the values by name.
        shared: whether another graph has some of the weights.

    Raises:
        ModelError: a constant has no value, or one of another type or shape; or a weight is that of no constant.
    """
    nodes = list(_nodes(graph_def))
    constants = [node for node in nodes if node.op == "Const"]
    for node in constants:
        tensor = attribute(node, "value").tensor
        if node.name in weights:
            dtype = _type(file, node)
            node.attr["value"].tensor.CopyFrom(_value(file, node, weights[node.name], dtype))
            node.attr["dtype"].type = dtype.as_datatype_enum
        elif not tensor.tensor_content and not any(name.name.endswith("_val") for name, _ in tensor.ListFields()):
            raise ModelError(
                f"Model {file} has no value for its constant {node.name!r}: weightsManifest does not list it. "
                f"{_CONVERT_AGAIN}"
            )
    unused = weights.keys() - {node.name for node in constants}
    if unused and not shared:
        name = min(unused)
        op = next((node.op for node in nodes if node.name == name), None)
        what = f"that node of its graph is no constant ({op})" if op else "its graph has no constant of that name"
        raise ModelError(f"Model {file} lists the weight {name!r} in weightsManifest, but {what}. {_CONVERT_AGAIN}")


def _nodes(graph_def: GraphDef) -> Iterator[NodeDef]:
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


def _type(file: Path, node: NodeDef) -> tf.DType:
    try:
        return tf.as_dtype(attribute(node, "dtype").type or attribute(node, "value").tensor.dtype or tf.float32)
    except TypeError as error:
        raise ModelError(f"Model {file} has a constant {node.name!r} of no type. {_CONVERT_AGAIN}") from error


def _value(file: Path, node: NodeDef, weight: np.ndarray, dtype: tf.DType) -> TensorProto:
    """Returns the value of a constant.

    Raises:
        ModelError: the weight is no value of its type, or has another shape than the graph says.
    """
    tensor = attribute(node, "value").tensor
    if tensor.HasField("tensor_shape") and not _has_shape(tensor, weight):
        raise ModelError(
            f"Model {file} lists the weight {node.name!r} in weightsManifest with the shape {list(weight.shape)}, but "
            f"the constant of that name has {[axis.size for axis in tensor.tensor_shape.dim]}. {_CONVERT_AGAIN}"
        )
    try:
        if not _holds(dtype, weight):
            raise TypeError(weight.dtype)
        return tf.make_tensor_proto(weight, dtype, weight.shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"Model {file} has a value for its constant {node.name!r} that is not of its type {dtype.name}, but "
            f"{'text' if weight.dtype == object else weight.dtype.name} in weightsManifest. {_CONVERT_AGAIN}"
        ) from error


def _has_shape(tensor: TensorProto, weight: np.ndarray) -> bool:
    shape = tensor.tensor_shape
    return shape.unknown_rank or [axis.size for axis in shape.dim] == list(weight.shape)


def _holds(dtype: tf.DType, weight: np.ndarray) -> bool:
    """Tells whether a type is of the kind of a weight, and has its numbers if these are integers."""
    if dtype.is_floating:
        return weight.dtype.kind == "f"
    if dtype.is_integer:
        return weight.dtype.kind in "iu" and bool(np.all((weight >= dtype.min) & (weight <= dtype.max)))
    return weight.dtype.kind == {tf.bool: "b", tf.string: "O"}.get(dtype, "c" if dtype.is_complex else "")
