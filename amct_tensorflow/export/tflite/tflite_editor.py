"""Edits a TensorFlow Lite model: the primitive edits that put integers into it.

The model is the object form of its flatbuffer, as TensorFlow's own tools edit it.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from amct_tensorflow.export.running_order import in_running_order
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, INT16_BITS, ActivationFactors

_OPS = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_DTYPES: dict[int, np.dtype[Any]] = {
    schema.TensorType.FLOAT32: np.dtype(np.float32),
    schema.TensorType.INT8: np.dtype(np.int8),
    schema.TensorType.INT16: np.dtype(np.int16),
    schema.TensorType.INT32: np.dtype(np.int32),
    schema.TensorType.INT64: np.dtype(np.int64),
}
_TYPES = {dtype: kind for kind, dtype in _DTYPES.items()}
_ACTIVATIONS = {INT8_BITS: schema.TensorType.INT8, INT16_BITS: schema.TensorType.INT16}
_BITS = {kind: bits for bits, kind in _ACTIVATIONS.items()}


class TfliteEditor:
    """A model under edit; tensors are their numbers.

    Edits are of its first graph. Others, such as the bodies of loops, stay as they are.
    """

    def __init__(self, content: bytes) -> None:
        self._model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
        self._graph = self._model.subgraphs[0]
        self.operators: list[Any] = list(self._graph.operators)
        self._left_over: set[int] = set()  # buffers of what was bypassed
        self._left_over_codes: set[int] = set()

    def op_type(self, operator: Any) -> str:
        """Returns the op type of an operator, in capitals."""
        code = self._model.operatorCodes[operator.opcodeIndex]
        return str(_OPS[max(code.builtinCode, code.deprecatedBuiltinCode)])

    def tensor(self, index: int) -> Any:
        """Returns a tensor."""
        return self._graph.tensors[index]

    def name(self, index: int) -> str:
        """Returns the name of a tensor: those of the nodes that it stands for, with semicolons between them."""
        return str(self._graph.tensors[index].name.decode())

    def rank(self, index: int) -> int:
        """Returns how many axes a tensor has."""
        return len(self._graph.tensors[index].shape)

    def constant(self, index: int) -> bytes | None:
        """Returns the content of a constant tensor; None if it is none."""
        data = self._model.buffers[self._graph.tensors[index].buffer].data
        return None if data is None or len(data) == 0 else bytes(bytearray(data))

    def values(self, index: int) -> np.ndarray | None:
        """Returns the values of a constant tensor of float32 or integers with a sign, flat; None if it is none."""
        data, kind = self.constant(index), self.tensor(index).type
        return None if data is None or kind not in _DTYPES else np.frombuffer(data, _DTYPES[kind])

    def readers(self, index: int) -> list[Any]:
        """Returns the operators that read a tensor."""
        return [operator for operator in self.operators if index in operator.inputs]

    def is_output(self, index: int) -> bool:
        """Tells whether a tensor is an output of the model."""
        return index in self._graph.outputs

    def add_tensor_like(self, index: int, name: str, grid: ActivationFactors) -> int:
        """Adds a tensor of int8 or int16 of the shape of another one, on a grid."""
        other = self._graph.tensors[index]
        tensor = self._new_tensor(name, list(other.shape), _ACTIVATIONS[grid.num_bits])
        tensor.shapeSignature = other.shapeSignature
        tensor.quantization = _on_grid(grid)
        return self._append(tensor)

    def append_level(self, index: int, name: str, level: int) -> int:
        """Appends an integer to every row of an int8 tensor of activations; returns the longer tensor."""
        grid, rank = self.grid(index), self.rank(index)
        longer = self.add_tensor_like(index, name, grid)
        tensor = self._graph.tensors[longer]
        tensor.shape = [*tensor.shape[:-1], tensor.shape[-1] + 1]
        if tensor.shapeSignature is not None:
            tensor.shapeSignature = [*tensor.shapeSignature[:-1], tensor.shape[-1]]
        value = self._add_constant(f"{name}/level", np.array(level, np.int8), _on_grid(grid))
        paddings = np.zeros((rank, 2), np.int32)
        paddings[-1, 1] = 1
        self.add_operator("PADV2", 2, [index, self._add_constant(f"{name}/paddings", paddings, None), value], longer)
        return longer

    def add_zeros(self, index: int, around: np.ndarray) -> int:
        """Adds zeros before and behind each axis of a float tensor of known sizes; returns the larger tensor.

        Args:
            index: the tensor.
            around: how many, int32 [axes, 2]; without any, there is no other tensor.
        """
        if not around.any():
            return index
        name = f"{self.name(index)}/zeros_around"
        larger = self.add_float_like(index, name)
        tensor = self._graph.tensors[larger]
        tensor.shape = [int(size) for size in np.add(tensor.shape, around.sum(axis=1))]
        tensor.shapeSignature = None
        self.add_operator("PAD", 1, [index, self._add_constant(f"{name}/paddings", around, None)], larger)
        return larger

    def grid(self, index: int) -> ActivationFactors:
        """Returns the grid of a tensor of activations in int8 or int16."""
        tensor = self._graph.tensors[index]
        parameters = tensor.quantization
        return ActivationFactors(float(parameters.scale[0]), int(parameters.zeroPoint[0]), _BITS[tensor.type])

    def add_float_like(self, index: int, name: str) -> int:
        """Adds a float tensor of the shape of another one."""
        other = self._graph.tensors[index]
        tensor = self._new_tensor(name, list(other.shape), schema.TensorType.FLOAT32)
        tensor.shapeSignature = other.shapeSignature
        return self._append(tensor)

    def add_integers(self, name: str, values: np.ndarray, scale: np.ndarray, axis: int) -> int:
        """Adds a constant of integers with a step for all values, or per entry along an axis."""
        return self._add_constant(name, values, _quantization(scale, np.zeros(scale.size, np.int64), axis))

    def bypass(self, operator: Any, tensor: int) -> None:
        """Takes an operator out; what read its output, which is no output of the model, reads a tensor instead."""
        (output,) = operator.outputs
        for reader in self.readers(output):
            reader.inputs = [tensor if index == output else index for index in reader.inputs]
        self._remove(operator)
        self._left_over.update(self.tensor(index).buffer for index in {*operator.inputs, output} - {tensor})
        self._left_over_codes.add(operator.opcodeIndex)

    def take_in_add(self, operator: Any, index: int, values: np.ndarray) -> bool:
        """Makes a constant that is added to what an operator yields one of its inputs.

        Args:
            operator: the operator; it has neither that input nor an activation, or it is left as it is.
            index: which input.
            values: the constant, one per channel.

        Returns:
            Whether the operator that alone reads the output adds just that.
        """
        (output,) = operator.outputs
        readers = self.readers(output)
        none = schema.ActivationFunctionType.NONE
        if len(readers) != 1 or self.is_output(output) or self.op_type(readers[0]) != "ADD":
            return False
        (add,) = readers
        others = [each for each in add.inputs if each != output]
        if len(others) != 1 or operator.builtinOptions.fusedActivationFunction != none:
            return False
        added = self.values(others[0])
        if added is None or list(self.tensor(others[0]).shape) != [values.size] or not np.array_equal(added, values):
            return False
        operator.inputs = [*operator.inputs[:index], others[0]]
        operator.outputs = add.outputs
        operator.builtinOptions.fusedActivationFunction = add.builtinOptions.fusedActivationFunction
        self._remove(add)
        return True

    def add_operator(self, op_type: str, version: int, inputs: list[int], output: int) -> None:
        """Adds an operator without options."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(op_type, version)
        operator.inputs = inputs
        operator.outputs = [output]
        self.operators.append(operator)

    def set_version(self, operator: Any, version: int) -> None:
        """Makes an operator of at least some version of its op type, which is what tells which types it takes."""
        code = self._model.operatorCodes[operator.opcodeIndex]
        operator.opcodeIndex = self._code(self.op_type(operator), max(version, code.version))

    def content(self) -> bytes:
        """Returns the edited model, its operators in an order in which they can run, without what nothing reads."""
        self._graph.operators = in_running_order(
            self.operators, lambda each: each.inputs, lambda each: each.outputs, wanted=self._graph.outputs
        )
        self._drop_unread()
        self._drop_left_over()
        return bytes(flatbuffer_utils.convert_object_to_bytearray(self._model))

    def _remove(self, operator: Any) -> None:
        self.operators = [each for each in self.operators if each is not operator]

    def _add_constant(self, name: str, values: np.ndarray, quantization: Any | None) -> int:
        tensor = self._new_tensor(name, list(values.shape), _TYPES[values.dtype])
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        tensor.buffer = len(self._model.buffers) - 1
        tensor.quantization = quantization
        return self._append(tensor)

    def _new_tensor(self, name: str, shape: list[int], kind: int) -> Any:
        tensor = schema.TensorT()
        tensor.name = name.encode()
        tensor.shape = shape
        tensor.type = kind
        tensor.buffer = 0  # the empty one
        return tensor

    def _append(self, tensor: Any) -> int:
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _code(self, op_type: str, version: int) -> int:
        number = getattr(schema.BuiltinOperator, op_type)
        for index, code in enumerate(self._model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == number and code.version == version:
                return index
        code = schema.OperatorCodeT()
        code.builtinCode = number
        code.deprecatedBuiltinCode = min(number, 127)  # what readers of the first schema see
        code.version = version
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1

    def _drop_unread(self) -> None:
        """Empties the buffers that no operator reads, and leaves their tensors out."""
        graph = self._graph
        used = {*graph.inputs, *graph.outputs}
        for operator in graph.operators:
            used.update(index for index in (*operator.inputs, *operator.outputs, *(operator.intermediates or ())))
        used.discard(-1)
        numbers = {old: new for new, old in enumerate(sorted(map(int, used)))}
        graph.tensors = [graph.tensors[old] for old in numbers]
        renumbered = numbers | {-1: -1}
        graph.inputs = [renumbered[int(index)] for index in graph.inputs]
        graph.outputs = [renumbered[int(index)] for index in graph.outputs]
        for operator in graph.operators:
            operator.inputs = [renumbered[int(index)] for index in operator.inputs]
            operator.outputs = [renumbered[int(index)] for index in operator.outputs]
        for signature in self._model.signatureDefs or ():
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = renumbered[int(entry.tensorIndex)]
        kept = {0, *(each.buffer for each in self._holders())}
        for index, buffer in enumerate(self._model.buffers):
            if index not in kept:
                buffer.data = None

    def _holders(self) -> list[Any]:
        """Returns what has a buffer."""
        return [tensor for graph in self._model.subgraphs for tensor in graph.tensors] + (self._model.metadata or [])

    def _drop_left_over(self) -> None:
        """Leaves out the buffers and op types of what was bypassed, where nothing else has them."""
        holders = self._holders()
        buffers, numbers = _without(self._model.buffers, self._left_over - {0, *(each.buffer for each in holders)})
        self._model.buffers = buffers
        for holder in holders:
            holder.buffer = numbers[holder.buffer]
        operators = [operator for graph in self._model.subgraphs for operator in graph.operators]
        codes = self._left_over_codes - {each.opcodeIndex for each in operators}
        self._model.operatorCodes, numbers = _without(self._model.operatorCodes, codes)
        for operator in operators:
            operator.opcodeIndex = numbers[operator.opcodeIndex]


def _without(entries: list[Any], left_out: Collection[int]) -> tuple[list[Any], dict[int, int]]:
    """Returns the entries that are not left out, and per number of one its new number."""
    kept = [index for index in range(len(entries)) if index not in left_out]
    return [entries[index] for index in kept], {old: new for new, old in enumerate(kept)}


def _on_grid(grid: ActivationFactors) -> Any:
    return _quantization(np.array([grid.scale]), np.array([grid.offset]), 0)


def _quantization(scale: np.ndarray, zero_point: np.ndarray, axis: int) -> Any:
    parameters = schema.QuantizationParametersT()
    parameters.scale = scale.astype(np.float32)
    parameters.zeroPoint = zero_point.astype(np.int64)
    parameters.quantizedDimension = axis
    return parameters
