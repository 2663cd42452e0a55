"""Settles the steps of weights, so that an integer kernel takes sums to the next layer's bytes as the simulation does.

The simulation multiplies sums by one factor, ``scale_d * scale_w`` by ``scale_d`` of the next layer, wherever nothing
but that layer reads them. A few factors of a thousand are none that the kernel multiplies by; see ``kernel_factors``.
So these steps are moved to the next float, or the one after, which no weight notices.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.graph.view import full_tensor_name
from amct_tensorflow.model.fusion import FusedGraph
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, ActivationFactors
from amct_tensorflow.quantize.algorithms.kernel_factors import settled_steps
from amct_tensorflow.quantize.quantized.quantizer_readers import clipped
from amct_tensorflow.quantize.record.factors import LayerFactors


def settle_steps(fused: FusedGraph, factors: Mapping[LayerName, LayerFactors]) -> dict[LayerName, LayerFactors]:
    """Returns the factors of layers, with the steps of weights settled for whoever reads each layer.

    Args:
        fused: the float graph after fusion.
        factors: the factors of all layers that are quantized.
    """
    read_with: dict[str, set[np.float32]] = {}
    for name, of_layer in factors.items():
        grid = ActivationFactors(of_layer.scale_d, of_layer.offset_d, of_layer.num_bits)
        read_with.setdefault(full_tensor_name(fused.input_of(name)), set()).add(grid.inverse)
    return {name: _settled(fused, name, of_layer, read_with) for name, of_layer in factors.items()}


def _settled(
    fused: FusedGraph, name: LayerName, factors: LayerFactors, read_with: Mapping[str, set[np.float32]]
) -> LayerFactors:
    """Returns the factors of a layer, settled if all layers that read it multiply alike.

    Args:
        fused: the float graph after fusion.
        name: the layer.
        factors: its factors.
        read_with: what the quantizers of layers multiply by, by the full name of the tensor that they read.
    """
    end, _ = clipped(fused.view, fused.tail_of(name), (), through_moves=False)
    inverses = read_with.get(f"{end}:0", set())
    if len(inverses) != 1 or not factors.scale_w or factors.num_bits != INT8_BITS:
        return factors
    (inverse,) = inverses
    steps = settled_steps(np.asarray(factors.scale_w, np.float32), factors.scale_d, inverse)
    return replace(factors, scale_w=tuple(steps.tolist()))
