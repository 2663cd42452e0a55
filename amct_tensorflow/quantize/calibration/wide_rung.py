"""Calibrates layers for activations in 16 bits from what their calibration in 8 bits has found.

A search raises layers from 8 bits to 16 only when it has seen that 8 do not suffice. So nothing of this takes place
before: the batches that calibration kept are run once more, and the ranges are those that it has observed.
"""

from collections.abc import Mapping
from contextlib import closing

import numpy as np
import tensorflow as tf
from threadpoolctl import threadpool_limits

from amct_tensorflow.graph.batch_splitter import images_of
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.graph.view import full_tensor_name
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.model.fusion import FusedGraph, FusedLayer
from amct_tensorflow.quantize.algorithms.activation_factors import INT16_BITS, wide_range_factors
from amct_tensorflow.quantize.algorithms.scales import arq_scales
from amct_tensorflow.quantize.algorithms.weight_steps import adapt_steps
from amct_tensorflow.quantize.calibration.calibrator import CalibrationResult, factors_of_nothing, in_precision
from amct_tensorflow.quantize.calibration.layer_moments import LayerMoments
from amct_tensorflow.quantize.calibration.replay import Replay
from amct_tensorflow.quantize.config.schema import QuantConfig
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.quantize.record.factors import LayerCorrection, LayerFactors


def wide_plan(
    graph: tf.Graph, plan: QuantizationPlan, calibration: CalibrationResult, config: QuantConfig
) -> QuantizationPlan:
    """Returns the plan in which every layer reads 16 bits; see ``QuantizationPlan.with_layers_of``.

    Layers that have factors in 16 bits already keep them, and so do inputs of other ops. A layer that no steps serve
    is left out.

    Args:
        graph: the float model as TensorFlow sees it; it tells the types of the tensors that were kept.
        plan: the plan in 8 bits.
        calibration: the calibration that the plan is of, with batches and summaries.
        config: its configuration.
    """
    fused = plan.fused
    kept = {
        name: each for name, each in plan.factors.items() if name not in fused.layers or each.num_bits == INT16_BITS
    }
    factors = {
        name: each
        for name in config.enabled_layers()
        if name in fused.layers and name not in kept
        if (each := _factors(fused.layers[name], calibration, config)) is not None
    }
    corrections = _corrections(graph, fused, factors, calibration, config) if factors else {}
    known = {name: each for name, each in plan.corrections.items() if name in kept}
    return QuantizationPlan(fused, {**kept, **factors}, {**known, **corrections}, plan.outputs)


def _factors(layer: FusedLayer, calibration: CalibrationResult, config: QuantConfig) -> LayerFactors | None:
    """Returns the factors of a layer in 16 bits; None if no steps of its weights serve it, or it has none."""
    if layer.op.second_input is not None:  # the device multiplies two computed operands in 8 bits alone
        return None
    summary = calibration.summaries[layer.name]
    scales: np.ndarray | None = None
    if layer.weights is not None:
        wise = config.layers[layer.name].weights.channel_wise
        scales = arq_scales(layer.name, layer.op_type, layer.weights, wise)
    activation = wide_range_factors(summary.lowest, summary.highest)
    if summary.lowest == summary.highest == 0:
        activation = factors_of_nothing(activation, layer, scales)
    activation = in_precision(activation, config, layer.name)
    scale_w: tuple[float, ...] = ()
    if scales is not None:
        steps = adapt_steps(layer, activation.scale, scales, INT16_BITS)
        if steps.failure is not None:
            log_for("calibration").debug("Layer %s has no form in 16 bits: %s.", layer.name, steps.failure)
            return None
        scale_w = tuple(steps.scales.tolist())
    return LayerFactors(activation.scale, activation.offset, scale_w, layer.batch_norm_kept, INT16_BITS)


def _corrections(
    graph: tf.Graph,
    fused: FusedGraph,
    factors: Mapping[LayerName, LayerFactors],
    calibration: CalibrationResult,
    config: QuantConfig,
) -> dict[LayerName, LayerCorrection]:
    """Runs the kept batches, and returns the corrections of layers with these factors."""
    layers = [layer for name, layer in fused.layers.items() if name in factors]
    sources = {name: graph.get_tensor_by_name(name) for name in calibration.batches[0]}
    inputs = [full_tensor_name(fused.input_of(layer.name)) for layer in layers]
    log_for("calibration").info("Calibrating %s for activations in 16 bits.", plural(len(layers), "layer"))
    with (
        threadpool_limits(limits=1, user_api="blas"),
        closing(Replay(fused, [fused.tail_of(layer.name) for layer in layers], sources)) as replay,
    ):
        splitter = replay.splitter(inputs, [layer.name for layer in layers])
        moments = LayerMoments(replay, fused, layers, factors, config)
        parts = [part for batch in calibration.batches for part in splitter.split(batch, images_of(batch))]
        return moments.corrections(parts)
