"""The integers of a quantized layer: weights, bias, and the scale that turns its sums back into values."""

import numpy as np

from amct_tensorflow.errors import RecordError
from amct_tensorflow.graph.op_types import OP_TYPES
from amct_tensorflow.record.layer_factors import LayerFactors

_INT32 = np.iinfo(np.int32)


def nearest_integers(op_type: str, weights: np.ndarray, scale_w: np.ndarray) -> np.ndarray:
    """Returns ``clip(rint(weights / scale_w), -128, 127)`` as int8 in the layout of ``weights``."""
    scale = OP_TYPES[op_type].along_channels(weights, scale_w.astype(np.float64))
    return np.asarray(np.clip(np.rint(weights / scale), -128, 127), np.int8)


def layer_deq_scale(factors: LayerFactors) -> np.ndarray:
    """Returns ``scale_d * scale_w`` as float32, shape [Cout] or [1]; ``scale_w`` counts as 1 where there is none."""
    product = np.float32(factors.scale_d) * np.asarray(factors.scale_w or (1.0,), np.float32)
    return np.asarray(product, np.float32)


def quantize_bias(name: str, bias: np.ndarray, deq_scale: np.ndarray) -> np.ndarray:
    """Returns ``rint(bias / deq_scale)`` as integer-valued float32 (spec section 7.5).

    Raises:
        RecordError: a value does not fit 32 bits.
    """
    quantized = np.rint(bias.astype(np.float64) / deq_scale.astype(np.float64))
    if not (np.all(quantized >= _INT32.min) and np.all(quantized <= _INT32.max)):
        raise RecordError(
            f"The bias of layer {name!r} exceeds 32 bits at its scales. Put the layer into skip_layers, or set its "
            "quant_enable to false in the configuration."
        )
    return quantized.astype(np.float32)
