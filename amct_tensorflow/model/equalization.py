"""Scales the channels of equalization groups, and the weights on both sides inversely: the model computes the same.

    x / f --> layer(w * f)     and where x comes from     layer(v / f) --> BiasAdd(b / f)

The original toolkit calls it DMQ balancing (spec section 7.6); with weights on both sides it is the equalization of
Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from amct_tensorflow.errors import RecordError
from amct_tensorflow.graph.names import FusedName, LayerName
from amct_tensorflow.graph.nodes import make_const
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.model.equalization_groups import EqualizationGroup, EqualizationGroups, find_equalization_groups
from amct_tensorflow.model.fusion import FusedGraph, FusedLayer

_REMEDY = "Use the record that quantize_preprocess and quantize_model wrote for this model, with the same outputs."


def equalize(fused: FusedGraph, factors: Mapping[LayerName, tuple[float, ...]], outputs: Sequence[str]) -> FusedGraph:
    """Divides the channels of equalization groups by factors.

    Args:
        fused: the graph, after fusion.
        factors: per layer by what to divide its input, [Cin], above 0; layers that read one group must agree, and
            those without factors take those of their group.
        outputs: nodes whose own value is requested.

    Returns:
        The graph with other weights and biases; its outputs are the same up to rounding.

    Raises:
        RecordError: a layer's input cannot be scaled, its channels are not as many, or two layers contradict each
            other.
    """
    if not factors:
        return fused
    found = find_equalization_groups(fused, outputs)
    _check_layers(fused, found, factors)
    inputs: dict[LayerName, np.ndarray] = {}
    outputs_of: dict[LayerName, np.ndarray] = {}
    balance: dict[LayerName, tuple[float, ...]] = {}
    scaled: set[FusedName] = set()
    for group in found.groups:
        values = _factors_of(group, factors)
        if values is not None:
            inputs.update(dict.fromkeys(group.readers, np.asarray(values, np.float64)))
            outputs_of.update(dict.fromkeys(group.producers, np.asarray(values, np.float64)))
            balance.update(dict.fromkeys(group.readers, values))
            scaled.update(group.nodes)
    editor = GraphEditor(fused.view)
    layers = {
        name: _scale(fused, editor, layer, inputs.get(name), outputs_of.get(name))
        for name, layer in fused.layers.items()
    }
    view = fused.view.edited(editor.graph_def())
    return replace(fused, view=view, layers=layers, balance=balance, scaled=frozenset(scaled))


def _check_layers(fused: FusedGraph, found: EqualizationGroups, factors: Mapping[LayerName, tuple[float, ...]]) -> None:
    channels = {reader: group.channels for group in found.groups for reader in group.readers}
    for name, values in factors.items():
        if name not in channels:
            reason = found.unscalable.get(name, "the model has no such layer with weights")
            raise RecordError(
                f"The input of layer {name!r} has a tensor_balance_factor, but cannot be scaled: {reason}. {_REMEDY}"
            )
        if len(values) != channels[name]:
            raise RecordError(
                f"The tensor_balance_factor of layer {name!r} has {len(values)} values, but its input "
                f"{channels[name]} channels. {_REMEDY}"
            )


def _factors_of(group: EqualizationGroup, factors: Mapping[LayerName, tuple[float, ...]]) -> tuple[float, ...] | None:
    given = [name for name in group.readers if name in factors]
    for name in given[1:]:
        if factors[name] != factors[given[0]]:
            raise RecordError(
                f"Layers {given[0]!r} and {name!r} read the same values, but their tensor_balance_factor differs. "
                f"{_REMEDY}"
            )
    return factors[given[0]] if given else None


def _scale(
    fused: FusedGraph,
    editor: GraphEditor,
    layer: FusedLayer,
    of_input: np.ndarray | None,
    of_output: np.ndarray | None,
) -> FusedLayer:
    """Returns a layer whose input and output are divided by factors, and puts it into the graph."""
    if layer.weights is None or (of_input is None and of_output is None):
        return layer
    assert layer.op.weight_input is not None
    weights, bias = layer.weights.astype(np.float64), layer.bias
    if of_input is not None:
        weights = weights * of_input.reshape([-1 if axis == layer.op.input_axis else 1 for axis in range(weights.ndim)])
    if of_output is not None:
        weights = weights / layer.op.along_channels(weights, of_output)
        bias = None if bias is None else (bias / of_output).astype(np.float32)
    balanced = replace(layer, weights=weights.astype(np.float32), bias=bias)
    assert balanced.weights is not None
    const = editor.add(make_const(editor.unique_name(f"{layer.name}/balanced_weights"), balanced.weights), layer.name)
    editor.replace_input(layer.name, layer.op.weight_input, const)
    if bias is not None and of_output is not None:
        const = editor.add(make_const(editor.unique_name(f"{layer.name}/balanced_bias"), bias), layer.name)
        editor.replace_input(fused.tail_of(layer.name), 1, const)
    return balanced
