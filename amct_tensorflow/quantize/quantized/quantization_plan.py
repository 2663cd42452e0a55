"""The plan from which a quantized model is built, and the integers of its layers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from amct_tensorflow.errors import RecordError
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.model.fusion import FusedGraph, FusedLayer
from amct_tensorflow.ops import OP_TYPES
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS
from amct_tensorflow.quantize.algorithms.weight_steps import ACCUMULATORS
from amct_tensorflow.quantize.record.factors import LayerCorrection, LayerFactors

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class QuantizationPlan:
    """How to quantize a model. Every model that leaves the engine is built from a plan alone.

    Attributes:
        fused: the float graph after fusion.
        factors: per layer to quantize, its factors; per ``op:input`` of another op, those of that input.
        corrections: per layer, its corrections; layers without any are left out.
        outputs: requested operators; they keep their names and, up to quantization error, their values.
        tables: the tables that are stored in int8, by their names.
    """

    fused: FusedGraph
    factors: Mapping[LayerName, LayerFactors]
    corrections: Mapping[LayerName, LayerCorrection]
    outputs: Sequence[str]
    tables: Collection[LayerName] = ()

    def restrict(self, configuration: Mapping[str, bool]) -> "QuantizationPlan":
        """Returns the plan without the layers that a configuration rolls back to float."""
        return replace(
            self,
            factors=_kept(self.factors, configuration),
            corrections=_kept(self.corrections, configuration),
        )

    def with_layers_of(self, other: "QuantizationPlan", names: Collection[LayerName]) -> "QuantizationPlan":
        """Returns the plan in which some layers are quantized as in another plan of the same model.

        Args:
            other: the other plan, such as that of ``wide_plan``.
            names: the layers; those that the other plan does not have stay as they are.
        """
        taken = other.factors.keys() & set(names)
        corrections = {name: each for name, each in self.corrections.items() if name not in taken}
        corrections.update((name, each) for name, each in other.corrections.items() if name in taken)
        factors = {name: other.factors[name] if name in taken else each for name, each in self.factors.items()}
        added = {name: other.factors[name] for name in other.factors if name in taken and name not in factors}
        return replace(self, factors={**factors, **added}, corrections=corrections)


def _kept(values: Mapping[LayerName, _T], configuration: Mapping[str, bool]) -> dict[LayerName, _T]:
    return {name: value for name, value in values.items() if configuration.get(name, True)}


def nearest_integers(op_type: str, weights: np.ndarray, scale_w: np.ndarray) -> np.ndarray:
    """Returns ``clip(rint(weights / scale_w), -128, 127)`` as int8 in the layout of ``weights``."""
    scale = OP_TYPES[op_type].along_channels(weights, scale_w.astype(np.float64))
    return np.asarray(np.clip(np.rint(weights / scale), -128, 127), np.int8)


def layer_integers(layer: FusedLayer, factors: LayerFactors, correction: LayerCorrection) -> np.ndarray:
    """Returns the integers of a layer's weights, int8 in their own layout."""
    assert layer.weights is not None
    if correction.weights is not None:
        return correction.weights
    return nearest_integers(layer.op_type, layer.weights, np.asarray(factors.scale_w, np.float32))


def corrected_bias(layer: FusedLayer, correction: LayerCorrection) -> np.ndarray | None:
    """Returns the bias of a layer, float64 [Cout]; None if there is none, and no correction asks for one."""
    if layer.bias is None and correction.bias is None:
        return None
    bias = np.zeros(layer.channels) if layer.bias is None else layer.bias.astype(np.float64)
    return bias if correction.bias is None else bias + correction.bias


def layer_deq_scale(factors: LayerFactors) -> np.ndarray:
    """Returns ``scale_d * scale_w`` as float32, shape [Cout] or [1]; ``scale_w`` counts as 1 where there is none."""
    product = np.float32(factors.scale_d) * np.asarray(factors.scale_w or (1.0,), np.float32)
    return np.asarray(product, np.float32)


def quantize_bias(bias: np.ndarray, deq_scale: np.ndarray, num_bits: int = INT8_BITS) -> np.ndarray:
    """Returns ``rint(bias / deq_scale)`` as integer-valued floats (spec section 7.5).

    They are float32 beside activations of 8 bits. Beyond ``2**24`` it holds every second integer, then every fourth.
    Such a bias is still exact to 24 bits, as the float model's is, and all readers of the file see the same integer.
    Beside activations of 16 bits they are float64, as the sums are, which holds all that fit.
    """
    dtype = np.float32 if num_bits == INT8_BITS else np.float64
    return np.rint(bias.astype(np.float64) / deq_scale.astype(np.float64)).astype(dtype)


def check_sums(
    name: str, op_type: str, integers: np.ndarray, bias: np.ndarray | None, num_bits: int = INT8_BITS
) -> None:
    """Checks that the sums of a layer fit their accumulator for any input, also with its zero point in it.

    Args:
        name: the layer.
        op_type: its op type.
        integers: its weights, int8.
        bias: integer-valued floats [Cout]; None without.
        num_bits: bits of its input.

    Raises:
        RecordError: they do not.
    """
    op, accumulator = OP_TYPES[op_type], ACCUMULATORS[num_bits]
    inputs = tuple(axis for axis in range(integers.ndim) if axis not in op.channel_axes)
    sums = accumulator.largest_input * np.abs(integers.astype(np.int16)).sum(axis=inputs, dtype=np.int64).reshape(-1)
    added = 0.0 if bias is None else np.abs(bias.astype(np.float64))
    largest = sums + added
    if not np.all(largest <= accumulator.largest_sum):
        channel = int(np.argmax(largest))
        raise RecordError(
            f"Bias and sums of layer {name!r} exceed {accumulator.bits} bits at its scales, by a factor of "
            f"{largest[channel] / accumulator.largest_sum:.3g} in channel {channel}. Make scale_w larger by that "
            "factor, calibrate again, or put the layer into skip_layers."
        )
