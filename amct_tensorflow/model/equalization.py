"""Scales the channels of equalization groups, and the weights on both sides inversely: the model computes the same.

    x / f --> layer(w * f)     and where x comes from     layer(v / f) --> BiasAdd(b / f)

Other constants around x, as gamma and beta of a LayerNorm, take the factors in like weights and biases. Where there are
none, a product with 1 / f stands in front of the layers that read x.

The original toolkit calls it DMQ balancing (spec section 7.6); with weights on both sides it is the equalization of
Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import RecordError
from amct_tensorflow.graph.names import FusedName, LayerName
from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import TensorName, aligned
from amct_tensorflow.model.equalization_groups import (
    EqualizationGroup,
    EqualizationGroups,
    Place,
    Product,
    find_equalization_groups,
)
from amct_tensorflow.model.fusion import DividedTensor, FusedGraph, FusedLayer
from amct_tensorflow.ops.channel_factors import Layout, divide

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
    editing = _Editing(fused, outputs)
    for group in found.groups:
        values = _factors_of(group, factors)
        if values is not None:
            editing.divide(group, values)
    return editing.finish()


class _Editing:
    """Divides groups one after the other."""

    def __init__(self, fused: FusedGraph, keep: Sequence[str]) -> None:
        self._fused = fused
        self._keep = keep
        self._editor = GraphEditor(fused.view)
        self._inputs: dict[LayerName, np.ndarray] = {}
        self._outputs: dict[LayerName, np.ndarray] = {}
        self._constants: dict[Place, np.ndarray | float] = {}
        self._balance: dict[LayerName, tuple[float, ...]] = {}
        self._divided: dict[TensorName, DividedTensor] = {}
        self._products: dict[LayerName, FusedName] = {}
        self._alike: dict[str, str] = {}
        self._origins = dict(fused.origins)

    def divide(self, group: EqualizationGroup, values: tuple[float, ...]) -> None:
        """Divides the channels of a group."""
        factors = np.asarray(values, np.float64)
        self._inputs.update(dict.fromkeys(group.readers, factors))
        self._outputs.update({name: divide(1, factors, layout, 1) for name, layout in group.producers.items()})
        self._balance.update(dict.fromkeys(group.readers, values))
        for tensor, layout in group.tensors.items():
            self._divided[tensor] = _divided(f"{tensor.node}:{tensor.port}", factors, layout)
        for place, divided in group.constants.items():
            for layout, exponent in _without_opposites(divided):
                self._constants[place] = divide(self._constants.get(place, 1.0), factors, layout, exponent)
        if group.product is not None:
            self._multiply(group.product, group.readers, factors)

    def _multiply(self, product: Product, readers: tuple[LayerName, ...], factors: np.ndarray) -> None:
        """Puts a product in front of the readers of a group."""
        divisor = _with_fewest_axes(divide(1, factors, product.layout).astype(np.float32), 1)
        scope = f"{readers[0]}/balanced_input"
        const = self._add(make_const(self._editor.unique_name(f"{scope}/factors"), divisor), readers[0])
        name = self._editor.unique_name(scope)
        text = product.tensor.removesuffix(":0")
        self._add(make_node(name, "Mul", [text, const], T=tf.float32), readers[0])
        self._alike[name] = text
        self._divided[TensorName(name, 0)] = _divided(product.tensor, factors, product.layout)
        self._products.update(dict.fromkeys(readers, FusedName(name)))
        for node, index in product.readers:
            self._editor.replace_input(node, index, name)

    def finish(self) -> FusedGraph:
        """Scales weights and other constants around all groups, and returns the graph."""
        fused = self._fused
        for place, scale in self._constants.items():
            self._scale_constant(place, scale)
        layers = {name: self._scale(layer) for name, layer in fused.layers.items()}
        view = fused.view.edited(self._editor.graph_def(), self._alike)
        return replace(
            fused,
            view=view,
            layers=layers,
            origins=self._origins,
            balance=self._balance,
            divided=self._divided,
            products=self._products,
        )

    def _scale_constant(self, place: Place, scale: np.ndarray | float) -> None:
        """Puts a constant that takes factors in into the graph."""
        name, index = place
        constant = self._fused.view.constant(self._fused.view.nodes[name].input[index])
        assert constant is not None
        scaled = _with_fewest_axes((constant.astype(np.float64) * scale).astype(constant.dtype), constant.ndim)
        if not np.array_equal(scaled, np.broadcast_to(constant, scaled.shape)):
            const = self._add(make_const(self._editor.unique_name(f"{name}/balanced"), scaled), name)
            self._editor.replace_input(name, index, const)

    def _scale(self, layer: FusedLayer) -> FusedLayer:
        """Returns a layer whose input and output are divided by factors, and puts it into the graph."""
        of_input, of_output = self._inputs.get(layer.name), self._outputs.get(layer.name)
        if layer.weights is None or (of_input is None and of_output is None):
            return layer
        assert layer.op.weight_input is not None
        weights, bias = layer.weights.astype(np.float64), layer.bias
        if of_input is not None:
            weights = weights * of_input.reshape(
                [-1 if axis == layer.op.input_axis else 1 for axis in range(weights.ndim)]
            )
        if of_output is not None:
            weights = weights / layer.op.along_channels(weights, of_output)
            bias = None if bias is None else (bias / of_output).astype(np.float32)
        balanced = replace(layer, weights=aligned(weights.astype(np.float32)), bias=bias)
        assert balanced.weights is not None
        const = make_const(self._editor.unique_name(f"{layer.name}/balanced_weights"), balanced.weights)
        name = self._add(const, layer.name)
        self._editor.replace_constant(layer.name, layer.op.weight_input, name, self._keep)
        if bias is not None and of_output is not None:
            name = self._add(make_const(self._editor.unique_name(f"{layer.name}/balanced_bias"), bias), layer.name)
            self._editor.replace_input(self._fused.tail_of(layer.name), 1, name)
        return balanced

    def _add(self, node: NodeDef, like: str) -> str:
        """Adds a node that stands for no original one."""
        name = self._editor.add(node, like)
        self._origins[FusedName(name)] = ()
        return name


def _divided(tensor: str, factors: np.ndarray, layout: Layout) -> DividedTensor:
    return DividedTensor(tensor, divide(1, factors, layout, 1).astype(np.float32))


def _without_opposites(divided: Sequence[tuple[Layout, int]]) -> list[tuple[Layout, int]]:
    """Leaves out what a constant is both multiplied and divided by, as the slope of a PReLU is."""
    kept: list[tuple[Layout, int]] = []
    for layout, exponent in divided:
        opposite = [each for each in kept if each[1] == -exponent and np.array_equal(each[0], layout)]
        if opposite:
            kept = [each for each in kept if each is not opposite[0]]
        else:
            kept.append((layout, exponent))
    return kept


def _with_fewest_axes(values: np.ndarray, least: int) -> np.ndarray:
    """Takes leading axes of length 1 away, down to a number of axes."""
    while values.ndim > least and values.shape[0] == 1:
        values = values[0]
    return values


def _check_layers(fused: FusedGraph, found: EqualizationGroups, factors: Mapping[LayerName, tuple[float, ...]]) -> None:
    channels = {reader: group.channels for group in found.groups for reader in group.readers}
    for name, values in factors.items():
        if name not in channels:
            reason = found.not_free.get(name, "the model has no such layer with weights")
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
