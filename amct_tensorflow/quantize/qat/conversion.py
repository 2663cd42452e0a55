"""Makes a quantization plan of a model that was trained with fake quantization.

    x -> FakeQuant -> layer(FakeQuant(weights)) -> BatchNorm -> Relu -> FakeQuant -> MaxPool -> the next layer

The graph is prepared and fused with its fake quantizers in it: TensorFlow itself computes the fake-quantized weights,
and nothing is folded across fake quantizers of activations. The factor of a BatchNorm changes the scales of weights,
not their integers. Then the layers bypass the fake quantizers that their factors repeat. A fake quantizer with other
readers becomes a pair of AscendQuant and AscendAntiQuant, so that these see the values of training.

A fake quantizer rounds ties up, AscendQuant to even. For inputs of the model that matters: images of 8 bits, scaled to
a range around 0, are all ties (see ``algorithms.activation_factors``). A slightly different scale would move ties away
from 0 or towards it, so that half of the integers would differ from those of training. So a small number is added to
the data instead, which moves all ties up, as in training.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.names import FusedName, LayerName, OriginalName
from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import Consumer, GraphView, parse_tensor_name, upstream
from amct_tensorflow.log import log_for
from amct_tensorflow.model.fusion import FusedGraph, fuse
from amct_tensorflow.model.layers import layer_weights, why_not_quantizable
from amct_tensorflow.model.preparation.drop_ordering import drop_ordering
from amct_tensorflow.model.preparation.fold_constants import fold_constants
from amct_tensorflow.model.preparation.inline_functions import inline_functions
from amct_tensorflow.model.preparation.prepare import prepare
from amct_tensorflow.model.preparation.prepared import PreparedGraph
from amct_tensorflow.ops import OP_TYPES, op_types_with
from amct_tensorflow.ops.traits import FakeQuantizer
from amct_tensorflow.quantize.algorithms.activation_factors import TIE_MARGIN
from amct_tensorflow.quantize.qat.fake_quantizer import as_fake_quantizer, is_fake_quantizer, moves, readers, source
from amct_tensorflow.quantize.qat.layer_quantizers import (
    Unquantizable,
    activation_factors,
    layer_factors,
    product_factors,
    weight_quantizer,
)
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.quantize.record.factors import LayerFactors


@dataclass(frozen=True, eq=False)
class FakeQuantizedModel:
    """The factors that the fake quantizers of a model imply.

    Attributes:
        plan: how the model is to be quantized.
        layers: the factors of its layers.
        unquantizable: per layer that stays in float although there are fake quantizers around it, why.
        unasked: layers without fake quantizers, which stay in float.
        kept: fake quantizers that stay: int8 cannot represent their values, or their range is not constant.
    """

    plan: QuantizationPlan
    layers: dict[LayerName, LayerFactors]
    unquantizable: dict[LayerName, str]
    unasked: list[LayerName]
    kept: list[str]


def read_fake_quantized(view: GraphView, outputs: Sequence[str], source_name: str | Path) -> FakeQuantizedModel:
    """Reads the factors that the fake quantizers of a model imply.

    Args:
        view: a frozen graph.
        outputs: its output operators.
        source_name: what messages call it.

    Raises:
        ModelError: the graph cannot be prepared.
    """
    inlined = inline_functions(drop_ordering(PreparedGraph.of(view, outputs, source_name)))
    ranged = fold_constants(inlined, but=op_types_with(FakeQuantizer)).view
    prepared = prepare(view, outputs, source_name)
    model = _Model(ranged, prepared.shaped, fuse(prepared.shaped, keep=outputs, origins=prepared.origins), outputs)
    decided = {name: model.decide(name) for name in model.candidates()}
    layers = {name: found for name, found in decided.items() if isinstance(found, LayerFactors)}
    quantizers = model.quantizers()
    repeated = [name for name in quantizers if model.is_repeated(name, layers)]
    others = {LayerName(f"{name}:0"): factors for name, (_, factors) in quantizers.items() if name not in repeated}
    parted, read = _break_ties(model.fused, {name: text for name, (text, _) in quantizers.items()})
    fused = _read_past(parted, read, repeated, layers)
    return FakeQuantizedModel(
        plan=QuantizationPlan(fused, {**layers, **others}, {}, outputs),
        layers=layers,
        unquantizable={name: found for name, found in decided.items() if isinstance(found, str)},
        unasked=[name for name, found in decided.items() if found is None],
        kept=[name for name in model.fake_quantizers() if name not in quantizers],
    )


class _Model:
    """The part of a model with fake quantizers on which its outputs depend."""

    def __init__(self, ranged: GraphView, prepared: GraphView, fused: FusedGraph, outputs: Sequence[str]) -> None:
        """Takes the graph with constant ranges of fake quantizers, the prepared one, and the fused one."""
        self.fused = fused
        self._ranged = ranged
        self._prepared = prepared
        self._outputs = outputs
        self._needed = upstream(fused.view.nodes, map(FusedName, outputs))

    def candidates(self) -> list[LayerName]:
        """Returns the nodes of types that can be quantized."""
        return [LayerName(node.name) for node in self._needed_nodes() if node.op in OP_TYPES]

    def fake_quantizers(self) -> list[FusedName]:
        """Returns the fake quantizers of activations."""
        return [FusedName(node.name) for node in self._needed_nodes() if is_fake_quantizer(node)]

    def quantizers(self) -> dict[FusedName, tuple[str, LayerFactors]]:
        """Returns per fake quantizer with the values of int8 its input and its factors."""
        found = {}
        for name in self.fake_quantizers():
            quantizer = as_fake_quantizer(self.fused.view, self.fused.view.nodes[name])
            with suppress(Unquantizable):
                if quantizer is not None:
                    found[name] = (quantizer.input, activation_factors(quantizer))
        return found

    def decide(self, name: LayerName) -> LayerFactors | str | None:
        """Returns the factors of a candidate, why it has none, or None if there are no fake quantizers around it."""
        node = self.fused.view.nodes[FusedName(name)]
        data = source(self.fused.view, node.input[OP_TYPES[node.op].data_input])
        weights = weight_quantizer(self._ranged, name)
        if name not in self.fused.layers:
            return why_not_quantizable(self._prepared, node) if data or weights else None
        layer = self.fused.layers[name]
        try:
            if layer.op.second_input is not None:
                return product_factors(data, source(self.fused.view, node.input[layer.op.second_input]))
            rounded = layer_weights(self._prepared, self._prepared.nodes[name])
            return layer_factors(layer, data, weights, rounded)
        except Unquantizable as reason:
            return str(reason)

    def is_repeated(self, name: str, layers: Mapping[LayerName, LayerFactors]) -> bool:
        """Tells whether only layers that quantize their input likewise read a fake quantizer."""
        edges = [edge for edge in readers(self.fused.view, name) if edge.node.name in self._needed]
        return name not in self._outputs and all(self._expects_no_values(edge, layers) for edge in edges)

    def _expects_no_values(self, edge: Consumer, layers: Mapping[LayerName, LayerFactors]) -> bool:
        reader = edge.node.name
        if moves(edge):
            return reader not in self._outputs
        return reader in layers and edge.input_index in self.fused.layers[LayerName(reader)].op.operands

    def _needed_nodes(self) -> Iterator[NodeDef]:
        return (node for node in self.fused.graph_def.node if node.name in self._needed)


def _break_ties(fused: FusedGraph, quantizers: Mapping[FusedName, str]) -> tuple[FusedGraph, dict[FusedName, str]]:
    """Moves the ties of a model's inputs up, by a small number added in front of their fake quantizers.

    Args:
        fused: the model.
        quantizers: per fake quantizer, what it reads.

    Returns:
        The model, and per fake quantizer what it reads now.
    """
    editor, read = GraphEditor(fused.view), dict(quantizers)
    shapes: dict[str, str] = {}
    for name, text in quantizers.items():
        quantizer = as_fake_quantizer(fused.view, fused.view.nodes[name])
        before = upstream(fused.view.nodes, [FusedName(parse_tensor_name(text).node)])
        layered = any(fused.view.nodes[each].op in OP_TYPES for each in before)
        if quantizer is None or layered or not quantizer.range.between.any():
            continue
        margin = np.float32(TIE_MARGIN) * quantizer.range.scale[0]
        constant = editor.add(make_const(editor.unique_name(f"{name}/hair"), np.array(margin, np.float32)), like=name)
        parted = editor.unique_name(f"{name}/part_ties")
        read[name] = editor.add(make_node(parted, "AddV2", [text, constant], T=tf.float32), like=name)
        shapes[parted] = name
        log_for("convert_qat_model").info(
            "%s rounds values in the middle between two of its levels up, as images scaled to its range all are. "
            "%.3g, %g of a step, is added to what it reads, so that these do not become even integers instead.",
            name, margin, TIE_MARGIN,
        )  # fmt: skip
    if not shapes:
        return fused, read
    inserted: dict[FusedName, tuple[OriginalName, ...]] = {
        FusedName(node.name): () for node in editor.graph_def().node if node.name not in fused.view.nodes
    }
    origins = {**fused.origins, **inserted}
    return replace(fused, view=fused.view.edited(editor.graph_def(), shapes), origins=origins), read


def _read_past(
    fused: FusedGraph, quantizers: Mapping[FusedName, str], repeated: Sequence[FusedName], layers: Collection[LayerName]
) -> FusedGraph:
    """Makes layers bypass the fake quantizers that their factors repeat, and replaces the others by Identity.

    Args:
        fused: the model.
        quantizers: per fake quantizer, what it reads.
        repeated: those that only layers read.
        layers: the layers that are quantized.
    """
    editor = GraphEditor(fused.view)
    for name in layers:
        for index in fused.layers[name].op.operands:
            reads = FusedName(parse_tensor_name(editor.node(name).input[index]).node)
            if reads in quantizers:
                editor.replace_input(name, index, quantizers[reads])
    for other in quantizers.keys() - set(repeated):
        editor.replace_node(make_node(other, "Identity", [quantizers[other]], T=tf.float32))
    editor.replace_tensors({f"{name}:0": quantizers[name] for name in repeated})
    return replace(fused, view=fused.view.edited(editor.graph_def()))
