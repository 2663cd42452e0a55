"""Writes a TensorFlow Lite model: its tensors, and the operators that computed graphs are made of.

The model is the object form of its flatbuffer, as TensorFlow's own tools write it. Tensors are their numbers. All
integers that are computed are in steps of 1, relative to their zero points, as an AscendQuant yields them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

_TYPES: dict[np.dtype[Any], int] = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int32): schema.TensorType.INT32,
}
_DTYPES = {kind: dtype for dtype, kind in _TYPES.items()}
_SCHEMA_VERSION = 3
# The greatest number of an op type that readers of the first schema know.
_MOST_DEPRECATED = 127


class LiteModel:
    """A model under construction."""

    def __init__(self) -> None:
        """Begins an empty model."""
        self._tensors: list[Any] = []
        self._buffers: list[Any] = [schema.BufferT()]  # the first one is empty, and that of all that is computed
        self._operators: list[Any] = []
        self._codes: dict[tuple[str, int], int] = {}

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Returns the shape of a tensor."""
        return tuple(map(int, self._tensors[tensor].shape))

    def floats(self, shape: Sequence[int]) -> int:
        """Adds a computed tensor of floats."""
        return self._tensor(shape, np.dtype(np.float32))

    def integers(self, shape: Sequence[int], zero_point: int) -> int:
        """Adds a computed tensor of int8 in steps of 1."""
        tensor = self._tensor(shape, np.dtype(np.int8))
        self._tensors[tensor].quantization = _quantization(np.ones(1), np.array([zero_point]), 0)
        return tensor

    def like(self, tensor: int, shape: Sequence[int]) -> int:
        """Adds a computed tensor that holds values as another one does."""
        other = self._tensors[tensor]
        added = self._tensor(shape, _DTYPES[other.type])
        self._tensors[added].quantization = other.quantization
        return added

    def constant(self, values: np.ndarray, steps: np.ndarray | None = None, axis: int = 0) -> int:
        """Adds a constant.

        Args:
            values: float32, int8 or int32.
            steps: of integers, one per entry along an axis, float32; None if they stand for themselves.
            axis: that axis.
        """
        tensor = self._tensor(values.shape, values.dtype)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._buffers.append(buffer)
        self._tensors[tensor].buffer = len(self._buffers) - 1
        if steps is not None:
            self._tensors[tensor].quantization = _quantization(steps, np.zeros(steps.size), axis)
        return tensor

    def add(self, op_type: str, version: int, inputs: Sequence[int], output: int, options: Any = None) -> int:
        """Adds an operator; returns its output.

        Args:
            op_type: as the schema calls it.
            version: the version that knows the types of its tensors.
            inputs: its inputs.
            output: its output.
            options: its options, in the form of the schema; None if it has none.
        """
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault((op_type, version), len(self._codes))
        operator.inputs, operator.outputs = list(inputs), [output]
        if options is not None:
            operator.builtinOptions = options
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        self._operators.append(operator)
        return output

    def content(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """Returns the model as the content of a file."""
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs = list(inputs), list(outputs)
        model = schema.ModelT()
        model.version = _SCHEMA_VERSION
        model.subgraphs, model.buffers = [graph], self._buffers
        model.operatorCodes = [_code(*key) for key in self._codes]
        return bytes(flatbuffer_utils.convert_object_to_bytearray(model))

    def _tensor(self, shape: Sequence[int], dtype: np.dtype[Any]) -> int:
        tensor = schema.TensorT()
        tensor.name = f"tensor_{len(self._tensors)}".encode()
        tensor.shape, tensor.type, tensor.buffer = list(shape), _TYPES[dtype], 0
        self._tensors.append(tensor)
        return len(self._tensors) - 1


def _code(op_type: str, version: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, op_type)
    code.deprecatedBuiltinCode = min(code.builtinCode, _MOST_DEPRECATED)
    code.version = version
    return code


def _quantization(steps: np.ndarray, zero_points: np.ndarray, axis: int) -> Any:
    parameters = schema.QuantizationParametersT()
    parameters.scale = steps.astype(np.float32)
    parameters.zeroPoint = zero_points.astype(np.int64)
    parameters.quantizedDimension = axis
    return parameters
