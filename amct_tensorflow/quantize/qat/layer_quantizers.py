"""Computes the factors of a layer from the fake quantizers around it, or says why it has none."""

from dataclasses import replace

import numpy as np

from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.log import log_for
from amct_tensorflow.model.fusion import FusedLayer
from amct_tensorflow.ops import OP_TYPES, Quantizable
from amct_tensorflow.quantize.algorithms.scales import LARGEST_SCALE, SMALLEST_SCALE
from amct_tensorflow.quantize.algorithms.weight_steps import adapt_steps, why_no_product
from amct_tensorflow.quantize.qat.fake_quantizer import FakeQuantizer, source
from amct_tensorflow.quantize.record.factors import LayerFactors


class Unquantizable(Exception):  # noqa: N818 - it is no error, but leaves a layer in float
    """The fake quantizers of a layer are not those of int8; the message is the rest of a sentence about the layer."""


def activation_factors(quantizer: FakeQuantizer) -> LayerFactors:
    """Returns scale and offset of a fake quantizer of activations.

    Raises:
        Unquantizable: it does not have the values of int8.
    """
    values = quantizer.range
    if values.scale.size != 1:
        raise Unquantizable("its input is fake-quantized per channel")
    if not values.is_int8:
        raise Unquantizable(
            f"its input is fake-quantized to the levels {values.lowest} to {values.highest}, and int8 has 0 to 255"
        )
    scale = float(values.scale[0])
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise Unquantizable("the range of its input's fake quantizer is empty")
    return LayerFactors(scale, int(values.zero_point[0]) - 128)


def weight_scales(op: Quantizable, weights: np.ndarray, quantizer: FakeQuantizer) -> np.ndarray:
    """Returns the steps of weights that a fake quantizer has rounded.

    Args:
        op: the op type of their layer.
        weights: the output of the fake quantizer, in the layout of the layer.
        quantizer: the fake quantizer.

    Returns:
        Scales, float32 [1] or [Cout]; 1 where the range is empty.

    Raises:
        Unquantizable: they have no scale that all weights of a channel share.
    """
    scale = np.where(quantizer.range.scale > 0, quantizer.range.scale, np.float32(1))
    if scale.size > 1:
        if scale.size != weights.shape[-1]:
            raise Unquantizable("its weights are fake-quantized per channel, and moved afterwards")
        scale = _per_output_channel(op, np.broadcast_to(scale, weights.shape))
    steps = weights / op.along_channels(weights, scale.astype(np.float64))
    if not np.allclose(steps, np.rint(steps), rtol=0, atol=1e-3):
        raise Unquantizable("its weights do not have the values of their fake quantizer")
    return scale


def _per_output_channel(op: Quantizable, scales: np.ndarray) -> np.ndarray:
    """Returns the scale of each output channel, of scales given for every weight."""
    others = tuple(axis for axis in range(scales.ndim) if axis not in op.channel_axes)
    lowest, highest = scales.min(axis=others).reshape(-1), scales.max(axis=others).reshape(-1)
    if not np.array_equal(lowest, highest):
        raise Unquantizable("its weights are fake-quantized per channel of its input")
    return np.asarray(lowest, np.float32)


def layer_factors(
    layer: FusedLayer, data: FakeQuantizer | None, weights: FakeQuantizer | None, rounded: np.ndarray | None
) -> LayerFactors | None:
    """Returns the factors of a layer; None if there are no fake quantizers around it.

    Args:
        layer: the fused layer.
        data: the fake quantizer of its input.
        weights: the fake quantizer of its weights.
        rounded: its output, before anything was folded into it.

    Raises:
        Unquantizable: they are none of int8, or there is one without the other.
    """
    if rounded is None:  # it has no weights
        return None if data is None else activation_factors(data)
    if data is None and weights is None:
        return None
    if data is None:
        raise Unquantizable("its weights are fake-quantized, but its input is not")
    if weights is None:
        raise Unquantizable("its input is fake-quantized, but its weights are not")
    factors = activation_factors(data)
    if factors.offset_d and not layer.op.zero_point:
        raise Unquantizable(f"its input is fake-quantized with a zero point, which {layer.op_type} cannot have")
    scale = weight_scales(layer.op, rounded, weights)
    if layer.folded_scale is not None:
        folded = np.abs(scale.astype(np.float64) * layer.folded_scale)
        scale = np.maximum(folded, SMALLEST_SCALE).astype(np.float32)
    _check_integers(layer, scale)
    steps = adapt_steps(layer, factors.scale_d, scale)
    if steps.failure is not None:
        raise Unquantizable(steps.failure)
    if steps.remark is not None:
        log_for("convert_qat_model").warning("Layer %s: %s.", layer.name, steps.remark)
    return replace(factors, scale_w=tuple(steps.scales.tolist()))


def product_factors(first: FakeQuantizer | None, second: FakeQuantizer | None) -> LayerFactors | None:
    """Returns the factors of a product of two computed operands; None if neither is fake-quantized.

    Raises:
        Unquantizable: one is, and the other is not; or one has a zero point.
    """
    if first is None and second is None:
        return None
    if first is None or second is None:
        raise Unquantizable("one of its operands is fake-quantized, and the other is not")
    factors = [activation_factors(each) for each in (first, second)]
    if any(each.offset_d for each in factors):
        raise Unquantizable(
            "an operand is fake-quantized with a zero point, which a product of two of them cannot have"
        )
    reason = why_no_product(factors[0].scale_d, factors[1].scale_d, None)
    if reason is not None:
        raise Unquantizable(reason)
    return replace(factors[0], scale_w=(factors[1].scale_d,))


def _check_integers(layer: FusedLayer, scale: np.ndarray) -> None:
    """Raises Unquantizable unless int8 without a zero point holds the weights of a layer."""
    assert layer.weights is not None
    integers = np.rint(layer.weights / layer.op.along_channels(layer.weights, scale.astype(np.float64)))
    if integers.min() < -128 or integers.max() > 127:
        raise Unquantizable(
            f"the integers of its weights are {integers.min():.0f} to {integers.max():.0f}, and int8 has -128 to 127: "
            "the range of their fake quantizer is not symmetric, or has more than 8 bits"
        )


def weight_quantizer(view: GraphView, name: str) -> FakeQuantizer | None:
    """Returns the fake quantizer of the weights of a layer; None if there is none, or they are no constant.

    Args:
        view: the graph before fake quantizers of constants are folded.
        name: the layer.
    """
    node = view.nodes.get(name)
    if node is None or node.op not in OP_TYPES:
        return None
    index = OP_TYPES[node.op].weight_input
    quantizer = None if index is None else source(view, node.input[index])
    return None if quantizer is None or view.constant(quantizer.input) is None else quantizer
