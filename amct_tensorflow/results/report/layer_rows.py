"""Describes each layer for a report."""

import math
from collections.abc import Sequence

import numpy as np

from amct_tensorflow.devices.rungs import Rung
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.io.contents import finite_or_none
from amct_tensorflow.model.fusion import FusedGraph, FusedLayer
from amct_tensorflow.model.inspection import InspectedLayer, Inspection
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.calibration.calibrator import CalibrationResult
from amct_tensorflow.quantize.calibration.observers import ActivationSummary
from amct_tensorflow.quantize.record.factors import LayerFactors
from amct_tensorflow.results.report.document import Activation, Histogram, InputProduct, Layer, Weights, Why
from amct_tensorflow.search.trials import SearchResult

_COSTLESS = "it costs next to nothing in float, and in int8 does more damage than half of the layers"


def describe_layers(inspection: Inspection, result: SearchResult) -> tuple[Layer, ...]:
    """Returns the layers of a model, in the order of the graph."""
    products = _input_products(inspection, result.plan.fused)
    return tuple(_describe(layer, result, products.get(LayerName(layer.name))) for layer in inspection.layers)


def _damage(similarity: float | None) -> float | None:
    return None if similarity is None else finite_or_none(1 - similarity)


def _is_int8(rung: Rung | None) -> bool:
    return rung is not None and not rung.is_float


def _input_products(inspection: Inspection, fused: FusedGraph) -> dict[LayerName, InputProduct]:
    """Returns the products in front of layers."""
    work = {LayerName(layer.name): layer.multiply_accumulates for layer in inspection.layers}
    found: dict[LayerName, InputProduct] = {}
    for product in dict.fromkeys(fused.products.values()):
        readers = [name for name, node in fused.products.items() if node == product]
        lengths = (fused.view.shape(product) or (None, None))[1:]
        values = None if None in lengths else math.prod(length for length in lengths if length is not None)
        counts = [count for name in readers if (count := work.get(name)) is not None]
        share = values / sum(counts) if values is not None and len(counts) == len(readers) and any(counts) else None
        found.update(dict.fromkeys(readers, InputProduct(values, share, tuple(readers))))
    return found


def _describe(layer: InspectedLayer, result: SearchResult, product: InputProduct | None) -> Layer:
    name, calibration = LayerName(layer.name), result.calibration
    rung = result.saved.configuration.get(name)
    why, evaluation, reason = _why(layer, result)
    analysis = calibration.analyses.get(name)
    fused = result.plan.fused.layers.get(name)
    balance = calibration.balance.get(name)
    factors = result.plan.factors.get(name) or calibration.factors.get(name)
    return Layer(
        name=name,
        type=layer.op_type,
        int8=_is_int8(rung),
        why=why,
        reason=reason,
        evaluation=evaluation,
        multiply_accumulates=layer.multiply_accumulates,
        parameters=layer.parameters,
        output_shape=layer.output_shape,
        damage=_damage(result.ranking.get(name)),
        sqnr_db=_decibels(analysis.noise if analysis else None),
        uncorrected_sqnr_db=_decibels(analysis.uncorrected_noise if analysis else None),
        activation=activation_of(name, factors, calibration) if analysis and factors else None,
        second_operand=_second_operand(fused, calibration) if analysis and fused else None,
        weights=_weights(fused, factors) if analysis and fused and factors else None,
        balance=None if balance is None else tuple(map(_short, balance)),
        input_product=product,
        rung=None if rung is None else rung.name,
    )


def _why(layer: InspectedLayer, result: SearchResult) -> tuple[Why | None, int | None, str | None]:
    """Returns why a layer stayed in float, the evaluation in which it first was, and the reason in words."""
    rung = result.saved.configuration.get(layer.name)
    if _is_int8(rung):
        return None, None, None
    reason = layer.reason or result.calibration.unquantizable.get(LayerName(layer.name))
    if reason is not None:
        return "unquantizable", None, f"it cannot be quantized: {reason}"
    left = result.left_in_float.get(LayerName(layer.name))
    if left is not None:
        return "device", None, left
    if LayerName(layer.name) in result.costless:
        return "costless", None, _COSTLESS
    if rung is None:
        return "configuration", None, "the configuration leaves it in float"
    trials = enumerate(result.trials, 2)
    number = next(number for number, trial in trials if trial.configuration[layer.name].is_float)
    return "rolled_back", number, f"rolled back by the search in evaluation {number}"


def activation_of(name: LayerName, factors: LayerFactors, calibration: CalibrationResult) -> Activation:
    """Returns how a tensor that was calibrated is quantized with its factors."""
    return _activation(
        ActivationFactors(factors.scale_d, factors.offset_d, factors.num_bits), calibration.summaries.get(name)
    )


def _second_operand(layer: FusedLayer, calibration: CalibrationResult) -> Activation | None:
    """Returns how the second operand of a product of two computed ones is quantized."""
    operands = calibration.factors[layer.name].operands(layer.op)[1:]
    for key, factors in zip(layer.operand_keys[1:], operands, strict=True):
        return _activation(factors, calibration.summaries.get(key))
    return None


def _activation(factors: ActivationFactors, summary: ActivationSummary | None) -> Activation:
    clip = factors.limits
    return Activation(
        scale=_short(factors.scale),
        offset=factors.offset,
        clip=(_short(clip[0]), _short(clip[1])),
        observed=None if summary is None else _histogram(summary),
        clipped=None if summary is None else _share_outside(summary, factors.scale, clip[0], clip[1]),
        num_bits=factors.num_bits,
    )


def _histogram(summary: ActivationSummary) -> Histogram:
    return Histogram(_short(summary.lowest), _short(summary.highest), tuple(map(float, summary.counts)))


def _share_outside(summary: ActivationSummary, scale: float, low: float, high: float) -> float:
    """Returns the share of values that are clipped, by the bins of a histogram whose middle lies outside.

    Half a step beyond the clip counts as inside, since it is rounded.
    """
    edges = np.linspace(summary.lowest, summary.highest, len(summary.counts) + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    outside = (middles < low - scale / 2) | (middles > high + scale / 2)
    return float(summary.counts[outside].sum() / max(summary.counts.sum(), 1))


def _weights(layer: FusedLayer, factors: LayerFactors) -> Weights | None:
    values = layer.weights
    if values is None:
        return None
    by_channel = layer.op.by_channel(values)
    return Weights(
        shape=tuple(values.shape),
        scales=_shortest(factors.scale_w),
        lowest=_shortest(by_channel.min(axis=1)),
        highest=_shortest(by_channel.max(axis=1)),
    )


def _decibels(noise: float | None) -> float | None:
    """Returns the signal-to-noise ratio of a noise-to-signal ratio; None also without any noise."""
    return None if not noise or not math.isfinite(noise) else round(-10 * math.log10(noise), 3)


def _short(value: float) -> float:
    """Returns a float32 value as the number with the fewest digits that stands for it."""
    return float(str(np.float32(value)))


def _shortest(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    """Returns float32 values likewise; layers have thousands."""
    return tuple(map(float, map(str, np.asarray(values, np.float32))))
