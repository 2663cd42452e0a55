"""Settles the steps of weights, so that an integer kernel takes sums to the next layer's bytes as the simulation does.

Where only one quantizer reads a convolution, a kernel can do so in the pass that adds up the sums. In some channels it
would round a sum otherwise, whatever it is told; see ``kernel_bytes``. Their steps grow to one of the next floats,
which no weight notices. Which float serves depends on the bias, so steps are settled after it has been corrected.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from amct_tensorflow.graph.names import FusedName, LayerName
from amct_tensorflow.graph.view import full_tensor_name
from amct_tensorflow.model.fusion import FusedGraph, FusedLayer
from amct_tensorflow.ops import trait
from amct_tensorflow.ops.clips import Clip
from amct_tensorflow.ops.traits import IntegerKernel
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, ActivationFactors
from amct_tensorflow.quantize.algorithms.kernel_bytes import KernelSums, kernel_numbers, settled_steps
from amct_tensorflow.quantize.quantized.quantization_plan import corrected_bias, layer_integers, quantize_bias
from amct_tensorflow.quantize.quantized.quantizer_readers import clipped
from amct_tensorflow.quantize.record.factors import LayerCorrection, LayerFactors

_CONVOLUTIONS = (IntegerKernel.CONVOLUTION, IntegerKernel.DEPTHWISE_CONVOLUTION)


def settle_steps(
    fused: FusedGraph, factors: Mapping[LayerName, LayerFactors], corrections: Mapping[LayerName, LayerCorrection]
) -> dict[LayerName, LayerFactors]:
    """Returns the factors of layers, with the steps of weights settled for whoever reads each layer.

    Args:
        fused: the float graph after fusion.
        factors: the factors of all layers that are quantized.
        corrections: their corrections; layers without any are left out.
    """
    readers: dict[str, list[ActivationFactors]] = {}
    for name, of_layer in factors.items():
        readers.setdefault(full_tensor_name(fused.input_of(name)), []).append(_grid(of_layer))
    return {
        name: _settled(fused, name, of_layer, corrections.get(name, LayerCorrection()), readers)
        for name, of_layer in factors.items()
    }


def _settled(
    fused: FusedGraph,
    name: LayerName,
    factors: LayerFactors,
    correction: LayerCorrection,
    readers: Mapping[str, Sequence[ActivationFactors]],
) -> LayerFactors:
    """Returns the factors of a layer, settled if only layers read it that quantize it alike, to 8 bits.

    Args:
        fused: the float graph after fusion.
        name: the layer.
        factors: its factors.
        correction: its corrections.
        readers: how layers quantize what they read, by the full name of the tensor.
    """
    layer = fused.layers[name]
    end, clip = clipped(fused.view, fused.tail_of(name), (), through_moves=False)
    grids = readers.get(f"{end}:0", ())
    if len(set(grids)) != 1 or len(grids) < len(fused.view.readers(FusedName(end))):
        return factors
    grid = grids[0]
    if {factors.num_bits, grid.num_bits} != {INT8_BITS} or trait(layer.op_type, IntegerKernel) not in _CONVOLUTIONS:
        return factors
    if len(factors.scale_w) != layer.channels:  # no step serves many channels at once
        return factors
    steps = _settled_steps(layer, factors, correction, grid, None if grid.repeats(clip) else clip)
    return replace(factors, scale_w=tuple(steps.tolist()))


def _settled_steps(
    layer: FusedLayer, factors: LayerFactors, correction: LayerCorrection, grid: ActivationFactors, clip: Clip | None
) -> np.ndarray:
    """Returns the steps of a layer's weights, float32; the quantized model has no clip that the quantizer repeats."""
    bias, steps = corrected_bias(layer, correction), np.asarray(factors.scale_w, np.float32)
    sums = KernelSums.of(_grid(factors), layer.op.by_channel(layer_integers(layer, factors, correction)), None)

    def is_exact(tried: np.ndarray, channels: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            deq_scale = np.float32(factors.scale_d) * tried
        integers = None if bias is None else quantize_bias(bias[channels], deq_scale)
        return kernel_numbers(deq_scale, sums.of_channels(channels, integers), grid, clip).exact

    return settled_steps(steps, is_exact)


def _grid(factors: LayerFactors) -> ActivationFactors:
    return ActivationFactors(factors.scale_d, factors.offset_d, factors.num_bits)
