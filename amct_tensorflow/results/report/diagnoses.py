"""Diagnoses the layers that lose most, where a model misses its target or has layers rolled back."""

from collections.abc import Sequence

from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.results.diagnosis import Symptoms, find_causes, most_damaging, spread_of_weights
from amct_tensorflow.results.report.document import Diagnosis, Layer
from amct_tensorflow.search.trials import SearchResult


def diagnose(layers: Sequence[Layer], result: SearchResult, *, may_balance: bool) -> tuple[Diagnosis, ...]:
    """Returns why the layers lose most that do, the most damaging first; nothing of a model that lost nothing to tell.

    Args:
        layers: the layers of the report.
        result: the result of the search.
        may_balance: whether the configuration lets calibration balance channels.
    """
    if result.saved.judged.satisfied and not any(layer.why == "rolled_back" for layer in layers):
        return ()
    return tuple(
        Diagnosis(layer.name, share, cause.kind, cause.detail, cause.remedy)
        for layer, share in most_damaging((layer, layer.damage or 0.0) for layer in layers if _is_open(layer, result))
        for cause in find_causes(_symptoms(layer, result, may_balance))
    )


def _is_open(layer: Layer, result: SearchResult) -> bool:
    """Tells whether a layer may need help: it was calibrated, and has not got enough by being raised to 16 bits."""
    if layer.activation is None:
        return False
    return (
        not result.saved.judged.satisfied
        or layer.activation.num_bits == result.calibration.factors[LayerName(layer.name)].num_bits
    )


def _symptoms(layer: Layer, result: SearchResult, may_balance: bool) -> Symptoms:
    activation, weights = layer.activation, layer.weights
    assert activation is not None
    summary = result.calibration.summaries.get(LayerName(layer.name))
    has_one_scale = weights is not None and len(weights.scales) == 1 < len(weights.lowest)
    return Symptoms(
        grid=ActivationFactors(activation.scale, activation.offset, activation.num_bits),
        shape=None if summary is None else summary.shape,
        is_balanced=layer.balance is not None,
        may_balance=may_balance,
        weight_spread=spread_of_weights(weights.lowest, weights.highest) if weights and has_one_scale else None,
        is_product=layer.second_operand is not None,
        seen=None if summary is None else (summary.lowest, summary.highest),
    )
