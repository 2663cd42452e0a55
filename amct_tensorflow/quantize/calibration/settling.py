"""Settles the steps of weights, so that an integer kernel takes sums to the next layer's bytes as the simulation does.

Where only one quantizer reads a layer, a kernel could do so in one pass. In three channels of a thousand, and in
sixteen of a hundred where values are clipped before, it would round some sums otherwise; see ``kernel_factors``. So
these steps are moved to one of the next floats, which no weight notices.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.graph.view import full_tensor_name
from amct_tensorflow.model.fusion import FusedGraph
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, ActivationFactors
from amct_tensorflow.quantize.algorithms.kernel_factors import BYTE_OFFSET, settled_steps
from amct_tensorflow.quantize.quantized.quantizer_readers import clipped
from amct_tensorflow.quantize.record.factors import LayerFactors


def settle_steps(fused: FusedGraph, factors: Mapping[LayerName, LayerFactors]) -> dict[LayerName, LayerFactors]:
    """Returns the factors of layers, with the steps of weights settled for whoever reads each layer.

    Args:
        fused: the float graph after fusion.
        factors: the factors of all layers that are quantized.
    """
    grids: dict[str, set[ActivationFactors]] = {}
    for name, of_layer in factors.items():
        grid = ActivationFactors(of_layer.scale_d, of_layer.offset_d, of_layer.num_bits)
        grids.setdefault(full_tensor_name(fused.input_of(name)), set()).add(grid)
    return {name: _settled(fused, name, of_layer, grids) for name, of_layer in factors.items()}


def _settled(
    fused: FusedGraph, name: LayerName, factors: LayerFactors, grids: Mapping[str, set[ActivationFactors]]
) -> LayerFactors:
    """Returns the factors of a layer, settled if all layers that read it quantize it alike, to bytes of zero point 0.

    Args:
        fused: the float graph after fusion.
        name: the layer.
        factors: its factors.
        grids: how layers quantize what they read, by the full name of the tensor.
    """
    end, clip = clipped(fused.view, fused.tail_of(name), (), through_moves=False)
    found = grids.get(f"{end}:0", set())
    if len(found) != 1 or not factors.scale_w or factors.num_bits != INT8_BITS:
        return factors
    (grid,) = found
    if grid.offset != BYTE_OFFSET or grid.num_bits != INT8_BITS:
        return factors
    steps = settled_steps(np.asarray(factors.scale_w, np.float32), factors.scale_d, grid, clip)
    return replace(factors, scale_w=tuple(steps.tolist()))
