"""Adapts the steps of a record that the user computed to the biases and sums of the layers.

The original toolkit writes a step of 1 where the step would be below ``2**-23``. If all weights of the channel are 0,
that rounds its bias to steps of ``scale_d``; if they are small, it makes all of them 0. Such a channel gets the step
that calibration would have chosen. If the sums of a layer would not fit 32 bits, its steps are widened as in
calibration.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from amct_tensorflow.errors import RecordError
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.log import log_for
from amct_tensorflow.model.fusion import FusedGraph, FusedLayer
from amct_tensorflow.quantize.algorithms.scales import arq_scales
from amct_tensorflow.quantize.algorithms.weight_steps import adapt_steps, fit_steps, why_no_product
from amct_tensorflow.quantize.record.factors import LayerFactors

# FLT_EPSILON: below it the original toolkit takes a channel for dead (spec section 7.3).
_DEAD_IN_THE_ORIGINAL = 2.0**-23
_STEP_OF_THE_DEAD = 1.0


def adapt_factors(
    factors: Mapping[LayerName, LayerFactors], fused: FusedGraph, source: str
) -> dict[LayerName, LayerFactors]:
    """Returns the factors of a record, each with steps that serve its layer; says which it changed.

    Args:
        factors: a record that was checked against the model.
        fused: the model as it is going to be quantized.
        source: name of the record file, for messages.

    Raises:
        RecordError: no steps serve a layer.
    """
    for name, each in factors.items():
        layer = fused.layers.get(name)
        if layer is not None and layer.op.second_input is not None:
            _check_product(name, each, fused.inner_length(name), source)
    return {name: _served(fused.layers.get(name), each, source) for name, each in factors.items()}


def _check_product(name: LayerName, factors: LayerFactors, inner: int | None, source: str) -> None:
    """Raises RecordError if the sums of a product of two computed operands do not fit."""
    reason = why_no_product(factors.scale_d, factors.scale_w[0], inner)
    if reason is not None:
        raise _unserved(source, name, reason)


def _served(layer: FusedLayer | None, factors: LayerFactors, source: str) -> LayerFactors:
    if layer is None or layer.weights is None:
        return factors
    given = np.asarray(factors.scale_w, np.float32)
    arq = arq_scales(layer.name, layer.op_type, layer.weights, given.size > 1)
    expected = adapt_steps(layer, factors.scale_d, arq, factors.num_bits).scales
    called_dead = (given == _STEP_OF_THE_DEAD) & ((arq < _DEAD_IN_THE_ORIGINAL) | (arq == _STEP_OF_THE_DEAD))
    replaced = called_dead & (given != expected)
    steps = fit_steps(layer, factors.scale_d, np.where(replaced, expected, given), factors.num_bits)
    if steps.failure is not None:
        raise _unserved(source, layer.name, steps.failure)
    log = log_for("record")
    if replaced.any():
        log.info(
            "Layer %s: %d of %d scale_w are 1, which the record says of channels that the original toolkit takes for "
            "dead; they are those that calibration chooses.", layer.name, np.count_nonzero(replaced), given.size,
        )  # fmt: skip
    if steps.remark is not None:
        log.warning("Layer %s: %s.", layer.name, steps.remark)
    return replace(factors, scale_w=tuple(steps.scales.tolist()))


def _unserved(source: str, name: LayerName, reason: str) -> RecordError:
    return RecordError(
        f"Record {source}, layer {name!r}: {reason}. Delete the layer from the record; it stays in float then."
    )
