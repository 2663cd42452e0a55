"""Adapts the steps of weights to the bias of their layer, and to sums of 32 bits; likewise those of two operands.

A layer adds integers in units of ``scale_d * scale_w``. ARQ chooses ``scale_w`` by the weights alone, and knows nothing
of the bias, which is rounded to these units and added to the sums. Four kinds of channels need another step:

*   A channel whose weights are all 0. Any step represents its weights. So it gets one like those of the other channels,
    but no coarser than ``2**-BIAS_BITS`` of its bias. That also suits runtimes that refuse a layer if the unit of one
    channel is out of proportion to the output.
*   A channel whose sums could exceed 32 bits, such as a nearly dead one with a bias:

        |bias| / (scale_d * scale_w) + 255 * sum(|w| / scale_w)  <=  2**31 - 1

    where 255 bounds both ``|x_q - offset_d|`` and a byte. Its step is widened until the left side is ``2**30``, which
    leaves room for what rounding and bias correction add. Activations in 16 bits have wider accumulators, and hardly
    ever need it; see ``ACCUMULATORS``.
*   A channel with a step of its own whose bias exceeds ``2**23`` units: its step is widened until it does not. Float32
    adds integers exactly up to ``2**24``, so that the simulation yields the very sums of the device.
*   A channel whose unit would be below the smallest normal float32: its step is widened until it is not.

A channel that is widened for its own bias hardly uses its weights. With ``n`` inputs its products are at most
``n / 259`` of the bias, and what rounding takes from them at most ``n / 65,000``, and on average ``1 / sqrt(3 * n)`` of
that: little beside half a step of what 8 bits make of the output. But if one step serves all channels, widening it
takes from the others as well; and so do sums that exceed 32 bits without a bias. Where the weights of these channels
lose more than ``_TOLERATED`` of the layer's sum of squares, no steps help, and the layer has to stay in float.

If calibration saw nothing but 0 at an input, its step is free. The layer's output is its bias then, so that ``scale_d``
must not make the units coarser than ``1 / _UNITS_OF_CONSTANT`` of the largest bias. It is no smaller than that, so that
later values of the input find a range.

A product of two computed operands, in int8 without a zero point, has no bias; the unit of its sums is the product of
both steps. Neither has weights whose sums are known, so that the largest bound its sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from amct_tensorflow.model.fusion import FusedLayer
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, INT16_BITS
from amct_tensorflow.quantize.algorithms.kernel_bytes import EXACT_SUMS
from amct_tensorflow.quantize.algorithms.scales import LARGEST_SCALE, SCALE_OF_NOTHING, SMALLEST_SCALE


@dataclass(frozen=True)
class Accumulator:
    """What the sums of a layer have to fit, bias included.

    Attributes:
        largest_input: bounds both ``|x_q - offset_d|`` and ``x_q`` itself, as runtimes hold it.
        bits: of a signed sum.
    """

    largest_input: int
    bits: int

    @property
    def largest_sum(self) -> int:
        """The greatest sum that fits."""
        return int((1 << (self.bits - 1)) - 1)

    @property
    def room(self) -> float:
        """Up to which sum steps are widened: half the greatest, for what rounding and bias correction add."""
        return float(2.0 ** (self.bits - 2))


# How many units a bias has at most in new steps: half of what float32 holds exactly, which leaves room for products.
_EXACT_BIAS = EXACT_SUMS / 2
_EXACT_BITS = EXACT_SUMS.bit_length() - 1
# By the bits of activations. Kernels for 16 bits add up in 64, of which TensorFlow Lite's requantization takes 48.
ACCUMULATORS = {INT8_BITS: Accumulator(255, 32), INT16_BITS: Accumulator(1 << 15, 48)}
# Of two operands in int8, of which a kernel may hold one as bytes without a sign.
_MOST_PRODUCTS = ACCUMULATORS[INT8_BITS].largest_sum // (ACCUMULATORS[INT8_BITS].largest_input * 128)
# A constant that is so many units is as exact as anything behind it; one has less than the 24 bits of a float32.
_BIAS_UNITS = 2.0**16
# Which share of a layer's largest bias its units may be if the bias is all that comes of it: 78 dB.
_UNITS_OF_CONSTANT = 2.0**12
# The step of a layer of zeros without a bias; its outputs are 0, whatever the step.
_STEP_OF_NOTHING = 2.0**-12
# A tenth of a percent, 30 dB: less than what rounding to 8 bits takes from weights of one step for all channels.
_TOLERATED = 1e-3

_NO_STEPS = "the steps that its bias and sums need to fit {} bits take too much from its weights"


@dataclass(frozen=True, eq=False)
class WeightSteps:
    """The steps of a layer's weights.

    Attributes:
        scales: float32, [Cout] or [1].
        widened: indices of the channels whose steps are wider than those that were asked for.
        bits: those that bias and sums have to fit.
        failure: why no steps help, as the rest of a sentence about the layer; None if these do.
    """

    scales: np.ndarray
    widened: Sequence[int] = ()
    bits: int = ACCUMULATORS[INT8_BITS].bits
    failure: str | None = None

    @property
    def remark(self) -> str | None:
        """A remark about widened steps, as the rest of a sentence about the layer; None if none were."""
        if not len(self.widened):
            return None
        if self.scales.size == 1:
            return f"the step of its weights is widened, so that bias and sums fit {self.bits} bits"
        shown = ", ".join(map(str, self.widened[:3])) + (", ..." if len(self.widened) > 3 else "")
        return (
            f"the steps of its weights are widened in {len(self.widened)} of {self.scales.size} channels ({shown}), so "
            f"that bias and sums fit {self.bits} bits"
        )


def step_for_zeros(layer: FusedLayer, scales: np.ndarray) -> float:
    """Returns the step of an input at which calibration saw nothing but 0, a float32 value.

    Args:
        layer: a layer with weights.
        scales: the steps of its weights, float32, [Cout] or [1].
    """
    bias, weights = _magnitudes(layer)
    living = scales[weights > 0] if scales.size > 1 else scales
    if not bias.any() or not weights.any():
        return SCALE_OF_NOTHING
    served = bias.max() / (_UNITS_OF_CONSTANT * float(living.max()))
    return float(np.float32(np.clip(served, SMALLEST_SCALE, SCALE_OF_NOTHING)))


def adapt_steps(layer: FusedLayer, scale_d: float, scales: np.ndarray, num_bits: int = INT8_BITS) -> WeightSteps:
    """Returns the given steps, such as those of ARQ, adapted to the layer where it needs others.

    Args:
        layer: a layer with weights.
        scale_d: step of its input.
        scales: float32, [Cout] or [1].
        num_bits: bits of its input.
    """
    largest_bias = _EXACT_BIAS if num_bits == INT8_BITS and scales.size > 1 else None
    return fit_steps(layer, scale_d, _adapt_zeros(layer, scale_d, scales), num_bits, largest_bias)


def _adapt_zeros(layer: FusedLayer, scale_d: float, scales: np.ndarray) -> np.ndarray:
    """Returns the steps, with those of channels without weights chosen for the bias."""
    bias, weights = _magnitudes(layer)
    if scales.size == 1:
        bias, weights = bias.max(keepdims=True), weights.max(keepdims=True)
    living = weights > 0
    if living.all():
        return scales
    by_bias = bias / (scale_d * _BIAS_UNITS)
    known = np.median(scales[living]) if living.any() else by_bias.max()
    usual = float(known) or _STEP_OF_NOTHING
    served = np.where(bias > 0, np.minimum(usual, by_bias), usual)
    return np.where(living, scales, np.maximum(served, SMALLEST_SCALE)).astype(np.float32)


def fit_steps(
    layer: FusedLayer,
    scale_d: float,
    scales: np.ndarray,
    num_bits: int = INT8_BITS,
    largest_bias: float | None = None,
) -> WeightSteps:
    """Widens steps where bias and sums would not fit their accumulator; what fits stays as it is.

    Args:
        layer: a layer with weights.
        scale_d: step of its input.
        scales: float32, [Cout] or [1].
        num_bits: bits of its input.
        largest_bias: how many units a bias may have; None for what fits.
    """
    accumulator = ACCUMULATORS[num_bits]
    bias, weights = _magnitudes(layer)
    for_bias = bias / scale_d / (largest_bias or accumulator.room)
    needed = np.maximum(for_bias + accumulator.largest_input * weights / accumulator.room, SMALLEST_SCALE / scale_d)
    if scales.size == 1:
        needed = needed.max(keepdims=True)
    too_narrow = scales < needed
    with np.errstate(over="ignore"):
        # Rounded up, so that steps that were widened once fit from then on.
        wider = np.nextafter(needed.astype(np.float32), np.float32(np.inf))
        fitting = np.where(too_narrow, wider, scales).astype(np.float32)
        if not np.isfinite(np.float32(scale_d) * fitting).all():
            return WeightSteps(scales, failure="the product of scale_d and scale_w exceeds float32")
    others = fitting > 2 * for_bias
    if too_narrow.any() and _loss(layer, fitting, others) - _loss(layer, scales, others) > _TOLERATED:
        return WeightSteps(scales, failure=_NO_STEPS.format(accumulator.bits))
    living = weights > 0 if scales.size > 1 else weights.any(keepdims=True)
    bits = _EXACT_BITS if largest_bias else accumulator.bits
    return WeightSteps(fitting, np.flatnonzero(too_narrow & living).tolist(), bits)


def _magnitudes(layer: FusedLayer) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``|bias|`` and the sum of ``|w|`` of each channel, float64 [Cout]."""
    assert layer.weights is not None
    inputs = tuple(axis for axis in range(layer.weights.ndim) if axis not in layer.op.channel_axes)
    weights = np.abs(layer.weights).sum(axis=inputs, dtype=np.float64).reshape(-1)
    bias = np.zeros_like(weights) if layer.bias is None else np.abs(layer.bias.astype(np.float64))
    return bias, weights


def _loss(layer: FusedLayer, scales: np.ndarray, counted: np.ndarray) -> float:
    """Returns the share of the weights' sum of squares that rounding loses in some channels, bool [Cout]."""
    assert layer.weights is not None
    weights = layer.weights.astype(np.float64)
    steps, counts = (layer.op.along_channels(weights, each) for each in (scales.astype(np.float64), counted))
    errors = weights - np.clip(np.rint(weights / steps), -128, 127) * steps
    total = np.sum(weights**2)
    return float(np.sum(errors**2 * counts) / total) if total else 0.0


def second_step(first: float, second: float) -> float:
    """Returns the step of a second operand, float32, widened if the unit of the sums would be no normal float32.

    Args:
        first: the step of the first operand.
        second: the step that its own values ask for.
    """
    return float(np.float32(max(second, SMALLEST_SCALE / first)))


def why_no_product(first: float, second: float, inner: int | None) -> str | None:
    """Returns why a product of two computed operands stays in float, as the rest of a sentence; None if it need not.

    Args:
        first: the step of its first operand.
        second: that of its second one.
        inner: how many products each of its sums has, as far as that is known.
    """
    if inner is not None and inner > _MOST_PRODUCTS:
        return f"its sums of {inner} products may exceed 32 bits, which hold {_MOST_PRODUCTS}"
    if not SMALLEST_SCALE <= first * second <= LARGEST_SCALE:
        return "the unit of its sums, the product of the steps of both operands, is beyond float32"
    return None
