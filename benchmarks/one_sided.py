"""Quantizing only the activations, or only the weights, to see what each of them costs.

No configuration asks for this, and no hardware needs it: within these blocks the engine's functions compute without one
of the two roundings, in calibration, scoring and model alike.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
from tensorflow.core.framework.function_pb2 import FunctionDef, FunctionDefLibrary
from tensorflow.core.framework.types_pb2 import DT_FLOAT

from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, highest_integer, lowest_integer
from amct_tensorflow.quantize.calibration import layer_moments
from amct_tensorflow.quantize.quantized import ascend_ops, quantization_plan


@contextmanager
def only_weights() -> Iterator[None]:
    """Within this block activations are clipped to their range, but not rounded."""

    def leave_out_rounding(function: FunctionDef) -> None:
        nodes = {node.name: node for node in function.node_def}
        nodes["limited"].input[0] = "scaled:z:0"  # instead of what was rounded
        function.ret["y"] = "clipped:z:0"

    def steps(read: layer_moments._Input, values: np.ndarray) -> np.ndarray:
        factors = read._reader.factors
        lowest, highest = lowest_integer(factors.num_bits), highest_integer(factors.num_bits)
        scaled = values * (np.float32(1) / np.float32(factors.scale_d))
        return np.asarray(np.clip(scaled, lowest - factors.offset_d, highest - factors.offset_d), np.float32)

    with (
        _changed_function(ascend_ops.QUANT, leave_out_rounding),
        mock.patch.object(layer_moments._Input, "_quantize", steps),
    ):
        yield


@contextmanager
def only_activations() -> Iterator[None]:
    """Within this block weights are not rounded; the configuration must ask for those of the nearest integers."""

    def take_floats(function: FunctionDef) -> None:
        nodes = {node.name: node for node in function.node_def}
        function.signature.input_arg[0].type = nodes["values"].attr["SrcT"].type = DT_FLOAT

    def steps(op_type: str, weights: np.ndarray, scale_w: np.ndarray) -> np.ndarray:
        return np.asarray(weights / OP_TYPES[op_type].along_channels(weights, scale_w), np.float32)

    with (
        _changed_function(ascend_ops.WEIGHT_QUANT, take_floats),
        mock.patch.object(quantization_plan, "nearest_integers", steps),
        mock.patch.object(layer_moments, "nearest_integers", steps),
    ):
        yield


@contextmanager
def _changed_function(name: str, change: Callable[[FunctionDef], None]) -> Iterator[None]:
    """Within this block, quantized graphs carry another function of a name."""
    original = ascend_ops.function_library

    def changed(bits: Collection[int] = (INT8_BITS,), op_types: Collection[str] | None = None) -> FunctionDefLibrary:
        library = original(bits, op_types)
        for function in library.function:
            if function.signature.name == name:
                change(function)
        return library

    with mock.patch.object(ascend_ops, "function_library", changed):
        yield
