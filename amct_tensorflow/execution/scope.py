"""Adding nodes that belong to one node of a graph."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from amct_tensorflow.graph.nodes import Attr, AttrLike, make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor

_SCOPE = "in_integers"


class Scope:
    """Adds nodes under the name, and on the device, of a node that they belong to."""

    def __init__(self, editor: GraphEditor, owner: str) -> None:
        self._editor = editor
        self._owner = owner

    def add(self, name: str, op: str, inputs: Sequence[str], **attrs: AttrLike) -> str:
        """Adds a node; returns its name in the graph."""
        return self._editor.add(make_node(self._full(name), op, inputs, **attrs), like=self._owner)

    def const(self, name: str, value: np.ndarray) -> str:
        """Adds a Const."""
        return self._editor.add(make_const(self._full(name), value), like=self._owner)

    def floats(self, name: str, value: float | np.ndarray) -> str:
        """Adds a Const of floats."""
        return self.const(name, np.asarray(value, np.float32))

    def quantized(self, name: str, value: np.ndarray, dtype: tf.DType) -> str:
        """Adds a Const of one of TensorFlow's quantized types, which NumPy does not know."""
        tensor = TensorProto(dtype=dtype.as_datatype_enum, tensor_content=np.ascontiguousarray(value).tobytes())
        tensor.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
        return self.add(name, "Const", (), dtype=dtype, value=Attr(tensor=tensor))

    def reshape(self, name: str, tensor: str, dtype: tf.DType, shape: Sequence[int] | str) -> str:
        """Adds a Reshape, to a shape that is known, or that a tensor says."""
        text = shape if isinstance(shape, str) else self.const(f"{name}_shape", np.array(shape, np.int32))
        return self.add(name, "Reshape", [tensor, text], T=dtype, Tshape=tf.int32)

    def _full(self, name: str) -> str:
        return self._editor.unique_name(f"{self._owner}/{_SCOPE}/{name}")
