"""Builds the quantized graph of a plan (spec section 8.3).

    x -> AscendQuant -> layer(AscendWeightQuant(int8 weights)) -> [BiasAdd] -> AscendDequant -> the layer's readers

A product of two computed operands has an AscendQuant on each, and no weights. An activation in front of an AscendQuant
that clips as much is left out (see ``absorbed_activations``). The bias is rounded to the accumulator's unit
``scale_d * scale_w`` and stored as integer-valued floats.

Sums of integers of 16 and 8 bits do not fit the 24 bits of float32. Such a layer computes in float64, which holds all
that fit its accumulator (see ``weight_steps``), so that they are exact in whatever order they are added:

    AscendQuant -> Cast -> layer(Cast(AscendWeightQuant)) -> [BiasAdd] -> Cast -> AscendDequant

The last Cast rounds the sum to float32, once.

AscendQuant, AscendDequant and AscendAntiQuant are called as the original toolkit calls them (spec section 8.3). What
else is inserted has a short name, ``q/w7`` the weights of the seventh layer: where a model has long scopes, names would
take as much as weights.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.function_pb2 import FunctionDefLibrary
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import RecordError
from amct_tensorflow.graph.names import FusedName, LayerName, OriginalName, PreparedName, QuantizedName
from amct_tensorflow.graph.nodes import make_const, make_node
from amct_tensorflow.graph.rewrite import GraphEditor
from amct_tensorflow.graph.view import Shape, TensorName, full_tensor_name, node_scope, parse_tensor_name
from amct_tensorflow.model.fusion import DividedTensor, FusedLayer
from amct_tensorflow.model.tables import find_tables
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, ActivationFactors
from amct_tensorflow.quantize.quantized import ascend_ops
from amct_tensorflow.quantize.quantized.absorbed_activations import absorb_activations
from amct_tensorflow.quantize.quantized.file_bytes import content_of
from amct_tensorflow.quantize.quantized.model_files import FileContent
from amct_tensorflow.quantize.quantized.quantization_plan import (
    QuantizationPlan,
    check_sums,
    corrected_bias,
    layer_deq_scale,
    layer_integers,
    quantize_bias,
)
from amct_tensorflow.quantize.quantized.quantized_layer import INSIDE_OUTPUT
from amct_tensorflow.quantize.quantized.shared_constants import share_constants
from amct_tensorflow.quantize.quantized.table_nodes import compress_table
from amct_tensorflow.quantize.quantized.uniform_constants import store_as_numbers
from amct_tensorflow.quantize.record.factors import LayerCorrection, LayerFactors
from amct_tensorflow.quantize.record.record_file import check_tables

# Scope under which the nodes of local_quantized_graph() expect the float graph.
FLOAT_SCOPE = "float"
# Scope of the inserted nodes whose names the format does not fix, and of constants that several nodes read.
SHORT_SCOPE = "q"


@dataclass(frozen=True, eq=False)
class QuantizedGraph:
    """A quantized graph, and the origins of its nodes, for the node map.

    Attributes:
        graph_def: the graph, with the function library that makes it run.
        origins: per node, the original nodes it stands for; an inserted node has none.
        values: per node, the node of the prepared graph whose output it reproduces; nodes without one are left out.
        hidden: the prepared nodes that the model's file does not have, as those of a function.
        absorbed: per AscendQuant that repeats activations, the last of them: the node of the prepared graph in whose
            place it reads; None if that has other values, as equalization has scaled them.
        divided: per node whose output 0 has values of the prepared graph divided by factors, and per AscendQuant that
            reads such, these values.
        shapes: the known shapes of its tensors, by full name; TensorFlow cannot infer them behind the functions that
            simulate quantization.
        outputs: the output operators that it was made for.
    """

    graph_def: GraphDef
    origins: dict[QuantizedName, tuple[OriginalName, ...]]
    values: dict[QuantizedName, PreparedName]
    hidden: frozenset[PreparedName]
    absorbed: dict[QuantizedName, PreparedName | None]
    divided: dict[QuantizedName, DividedTensor]
    shapes: dict[str, Shape]
    outputs: tuple[str, ...]

    @cached_property
    def model(self) -> bytes:
        """The graph as it stands in its file; equal graphs give equal bytes."""
        return bytes(self.graph_def.SerializeToString(deterministic=True))

    @cached_property
    def content(self) -> FileContent:
        """What the bytes of its file are."""
        return content_of(self.graph_def)


def quantize_graph(plan: QuantizationPlan) -> QuantizedGraph:
    """Quantizes the layers that a plan has factors of; the others stay float.

    Raises:
        RecordError: sums of a layer do not fit 32 bits.
    """
    builder = _Builder(plan)
    layers = plan.fused.layers
    dequantized = {
        plan.fused.tail_of(name): builder.quantize(layer) for name, layer in layers.items() if name in plan.factors
    }
    builder.compress_tables()
    for key in sorted(plan.factors.keys() - layers.keys()):  # sets of names have no order that lasts
        builder.quantize_input(key, plan.factors[key])
    return builder.finish(dequantized)


def local_quantized_graph(
    plan: QuantizationPlan, *, share_quantizers: bool = True, exact: bool = False
) -> tuple[GraphDef, dict[LayerName, QuantizedName]]:
    """Returns the quantized layers alone, each still reading the tensor that the float layer reads.

    Args:
        plan: its factors are those of layers only.
        share_quantizers: whether layers with the same input and factors share one AscendQuant.
        exact: whether layers that read 16 bits compute in float64, as in the model that is saved. In float32 they are
            several times as fast, and lose what the float model loses itself.

    Returns:
        A GraphDef whose nodes read tensors ``float/name:index`` that it does not contain, and per layer name its
        AscendDequant.
    """
    builder = _Builder(plan, share_quantizers=share_quantizers, exact=exact)
    outputs = {name: builder.quantize(plan.fused.layers[name]) for name in plan.factors}
    return builder.quantized_layers(), outputs


class _Builder:
    """Inserts the quantization nodes into a copy of the fused graph."""

    def __init__(self, plan: QuantizationPlan, *, share_quantizers: bool = True, exact: bool = True) -> None:
        self._plan = plan
        self._share_quantizers = share_quantizers
        self._exact = exact
        self._editor = GraphEditor(plan.fused.view)
        self._quantizers: dict[tuple[str, ...], QuantizedName] = {}
        self._widened: dict[str, QuantizedName] = {}  # per tensor, its Cast to float64
        self._origins: dict[QuantizedName, tuple[OriginalName, ...]] = {}
        self._inserted: list[QuantizedName] = []
        self._values: dict[QuantizedName, FusedName] = {}
        self._read: dict[QuantizedName, TensorName] = {}
        # Nodes that go on reading a quantized layer's integers when its other readers get the dequantized value.
        self._inside: set[str] = set()
        self._number = -1  # of the layer that is quantized

    def quantize(self, layer: FusedLayer) -> QuantizedName:
        """Quantizes one layer; returns its AscendDequant, to which ``finish`` redirects the readers."""
        self._number += 1
        factors = self._plan.factors[layer.name]
        correction = self._plan.corrections.get(layer.name, LayerCorrection())
        editor = self._editor
        is_wide = self._exact and factors.num_bits != INT8_BITS
        data = self._plan.fused.operands_of(layer.name)
        for index, text, grid in zip(layer.op.operands, data, factors.operands(layer.op), strict=True):
            quantizer = self._quantizer(text, layer.name, grid)
            editor.replace_input(layer.name, index, self._widen(quantizer) if is_wide else quantizer)
        deq_scale = layer_deq_scale(factors)
        value: str = self._plan.fused.accumulator_of(layer.name)
        for name in {layer.name, value} if is_wide else ():
            editor.set_type(name, tf.float64)
        if layer.weights is not None:
            integers = self._insert_weights(layer, factors, correction, is_wide)
            bias = corrected_bias(layer, correction)
            bias = None if bias is None else quantize_bias(bias, deq_scale, factors.num_bits)
            check_sums(layer.name, layer.op_type, integers, bias, factors.num_bits)
            value = self._insert_bias(layer, bias, tf.float64 if is_wide else tf.float32)
        originals = dict.fromkeys((*self._plan.fused.originals([FusedName(layer.name)]), *layer.absorbed))
        self._origins[QuantizedName(layer.name)] = tuple(originals)
        return self._insert_dequant(layer, value, deq_scale, is_wide)

    @property
    def _bits(self) -> set[int]:
        """The bits of its quantizers."""
        return {factors.num_bits for factors in self._plan.factors.values()}

    def compress_tables(self) -> None:
        """Stores the tables of the plan in int8.

        Raises:
            RecordError: one is no table, or cannot be stored so.
        """
        view = self._plan.fused.view
        for table in check_tables(self._plan.tables, find_tables(view, self._plan.outputs), "of the plan").values():
            compress_table(self._editor, view, table, self._insert)

    def quantize_input(self, key: str, factors: LayerFactors) -> None:
        """Quantizes and dequantizes an input of an op that is no layer (tensor_quantize).

        Raises:
            RecordError: the op has been folded into a layer, and has no such input any more.
        """
        name, _, index = key.rpartition(":")
        node = self._editor.find(name)
        if node is None or int(index) >= len(node.input) or node.op == "BiasAdd":
            raise RecordError(f"Record: the model has no input {key!r} after fusion. Delete it from tensor_quantize.")
        grid = ActivationFactors(factors.scale_d, factors.offset_d, factors.num_bits)
        quantizer = self._quantizer(node.input[int(index)], name, grid)
        scope = self._editor.unique_scope(f"{node_scope(name)}anti_quant", [ascend_ops.ANTI_QUANT])
        anti = ascend_ops.anti_quant_node(
            f"{scope}/{ascend_ops.ANTI_QUANT}", quantizer, factors.scale_d, factors.offset_d
        )
        self._editor.replace_input(name, int(index), self._insert(anti, name))

    def finish(self, dequantized: Mapping[FusedName, QuantizedName]) -> QuantizedGraph:
        """Rewires the readers of every quantized layer and leaves out what the outputs do not need."""
        editor, outputs = self._editor, self._plan.outputs
        editor.redirect(dequantized, exempt=self._inside)
        for output in outputs:
            if FusedName(output) in dequantized:
                self._keep_output_name(output, dequantized[FusedName(output)])
        absorbed = absorb_activations(editor, self._quantizers.values(), outputs)
        graph_def = editor.graph_def_for(outputs)
        store_as_numbers(graph_def)
        shared = share_constants(graph_def, SHORT_SCOPE, outputs)
        graph_def.library.MergeFrom(self._functions(graph_def))
        kept = {QuantizedName(node.name) for node in graph_def.node}
        fused = self._plan.fused
        prepared = fused.prepared_values()
        origins = {
            **{name: fused.originals([FusedName(name)]) for name in kept if FusedName(name) in fused.origins},
            **dict.fromkeys(self._inserted, ()),
            **{QuantizedName(name): self._originals_of(constants) for name, constants in shared.items()},
            **{name: fused.originals(activations) for name, activations in absorbed.items()},
            **self._origins,
        }
        return QuantizedGraph(
            graph_def,
            {name: each for name, each in origins.items() if name in kept},
            self._prepared_values(kept),
            frozenset(map(PreparedName, fused.origins)),
            {name: _prepared(activations[-1], prepared) for name, activations in absorbed.items()},
            self._divided_values(kept),
            self._shapes(kept, shared),
            tuple(outputs),
        )

    def _originals_of(self, constants: Collection[str]) -> tuple[OriginalName, ...]:
        """Returns the original nodes that constants stand for, none of which the builder has inserted."""
        inserted = set(self._inserted)
        return self._plan.fused.originals(FusedName(name) for name in constants if name not in inserted)

    def _functions(self, graph_def: GraphDef) -> FunctionDefLibrary:
        """Returns the functions that the nodes of a quantized graph need."""
        return ascend_ops.function_library(self._bits, {node.op for node in graph_def.node})

    def _shapes(self, kept: Collection[QuantizedName], shared: Mapping[str, Sequence[str]]) -> dict[str, Shape]:
        """Returns the shapes of the first outputs of kept nodes, as far as the float graph tells them."""
        view = self._plan.fused.view
        alike = self._values | {QuantizedName(name): FusedName(constants[0]) for name, constants in shared.items()}
        shapes = {name: view.shape(alike.get(name, FusedName(name))) for name in kept}
        return {f"{name}:0": shape for name, shape in shapes.items() if shape is not None}

    def _prepared_values(self, kept: Collection[QuantizedName]) -> dict[QuantizedName, PreparedName]:
        """Returns per kept node whose output reproduces that of a node of the prepared graph, this node.

        These are the AscendDequants, and what stands between layers, where it is neither new nor scaled.
        """
        fused = self._plan.fused
        prepared = fused.prepared_values()
        integers = {fused.tail_of(name) for name in fused.layers if name in self._plan.factors}
        same = {QuantizedName(name): name for name in prepared - integers}
        dequantized = {name: _prepared(value, prepared) for name, value in self._values.items()}
        values = {**same, **dequantized}
        return {name: value for name, value in values.items() if name in kept and value is not None}

    def _divided_values(self, kept: Collection[QuantizedName]) -> dict[QuantizedName, DividedTensor]:
        """Returns per kept node that yields divided values, or AscendQuant that reads such, these values."""
        fused = self._plan.fused
        known = {
            tensor: values
            for tensor, values in fused.divided.items()
            if parse_tensor_name(values.tensor).node in fused.prepared
        }
        integers = {fused.tail_of(name) for name in fused.layers if name in self._plan.factors}
        same = {QuantizedName(node): TensorName(node, 0) for node, port in known if port == 0 and node not in integers}
        dequantized = {name: TensorName(value, 0) for name, value in self._values.items()}
        tensors = {**same, **dequantized, **self._read}
        return {name: known[tensor] for name, tensor in tensors.items() if name in kept and tensor in known}

    def quantized_layers(self) -> GraphDef:
        """Returns the nodes of the quantized layers alone; inputs from the float graph are named ``float/...``.

        The input of an AscendQuant always is the float graph's, even if it is the output of a layer quantized here.
        """
        fused = self._plan.fused
        layers = [LayerName(name) for name in self._origins]
        own = {part for name in layers for part in (name, fused.accumulator_of(name), fused.tail_of(name))}
        names: set[str] = {*own, *self._inserted}
        graph_def = self._editor.graph_def_of(names)
        for node in graph_def.node:
            # Control edges only order the float graph; here they would lead out of it.
            data = [text for text in node.input if not text.startswith("^")]
            del node.input[:]
            node.input.extend(data)
            for index, text in enumerate(data):
                if node.op == ascend_ops.QUANT or parse_tensor_name(text).node not in names:
                    node.input[index] = f"{FLOAT_SCOPE}/{full_tensor_name(text)}"
        graph_def.library.MergeFrom(self._functions(graph_def))
        return graph_def

    def _insert(self, node: NodeDef, like: str) -> QuantizedName:
        """Adds a node, on the device of node ``like``, that stands for no original node."""
        self._inserted.append(QuantizedName(self._editor.add(node, like=like)))
        return self._inserted[-1]

    def _insert_const(self, node: NodeDef) -> QuantizedName:
        """Adds a constant of the layer; on no device, as TensorFlow keeps a constant where it is read."""
        self._inserted.append(QuantizedName(self._editor.put(node)))
        return self._inserted[-1]

    def _short_name(self, kind: str) -> str:
        """Returns a name for a node of the layer; ``kind`` is a letter."""
        return self._editor.unique_name(f"{SHORT_SCOPE}/{kind}{self._number}")

    def _quantizer(self, text: str, reader: str, grid: ActivationFactors) -> QuantizedName:
        """Returns the AscendQuant on input ``text`` of a node; readers with the same input and factors may share it."""
        key: tuple[str, ...] = (full_tensor_name(text), repr(grid.scale), repr(grid.offset), repr(grid.num_bits))
        if not self._share_quantizers:
            key = (*key, reader)
        if key not in self._quantizers:
            scope = self._editor.unique_scope(f"{node_scope(reader)}act_quant", [ascend_ops.QUANT])
            name = f"{scope}/{ascend_ops.QUANT}"
            node = ascend_ops.quant_node(name, text, grid.scale, grid.offset, grid.num_bits)
            self._quantizers[key] = self._insert(node, reader)
            self._read[self._quantizers[key]] = parse_tensor_name(text)
        return self._quantizers[key]

    def _widen(self, quantizer: QuantizedName) -> QuantizedName:
        """Returns the float64 of the output of an AscendQuant or AscendWeightQuant; readers share it."""
        if quantizer not in self._widened:
            self._widened[quantizer] = self._cast(quantizer, tf.float32, tf.float64)
        return self._widened[quantizer]

    def _cast(self, tensor: str, source: tf.DType, target: tf.DType) -> QuantizedName:
        node = make_node(self._short_name("c"), "Cast", [tensor], SrcT=source, DstT=target)
        return self._insert(node, parse_tensor_name(tensor).node)

    def _insert_weights(
        self, layer: FusedLayer, factors: LayerFactors, correction: LayerCorrection, is_wide: bool
    ) -> np.ndarray:
        """Quantizes the weights; returns their integers."""
        assert layer.op.weight_input is not None
        quantized = layer_integers(layer, factors, correction)
        weights = self._insert_const(make_const(self._short_name("w"), quantized))
        offsets = self._insert_const(make_const(self._short_name("o"), np.zeros(1, np.int8)))
        node = ascend_ops.weight_quant_node(self._short_name("q"), weights, offsets)
        quantizer = self._insert(node, layer.name)
        self._editor.replace_input(layer.name, layer.op.weight_input, self._widen(quantizer) if is_wide else quantizer)
        return quantized

    def _insert_bias(self, layer: FusedLayer, bias: np.ndarray | None, dtype: tf.DType) -> str:
        """Inserts the integers of the bias, if there is one; returns the node that holds the sum, of type ``dtype``."""
        if bias is None:
            return self._plan.fused.accumulator_of(layer.name)
        const = self._insert_const(make_const(self._short_name("b"), bias.astype(dtype.as_numpy_dtype)))
        if layer.bias is not None:
            tail = self._plan.fused.tail_of(layer.name)
            self._editor.replace_input(tail, 1, const)
            self._editor.set_type(tail, dtype)
            self._inserted.append(QuantizedName(tail))
            return tail
        accumulator = self._plan.fused.accumulator_of(layer.name)
        node = make_node(self._short_name("a"), "BiasAdd", [accumulator, const], T=dtype, data_format=layer.data_format)
        self._inside.add(node.name)
        return self._insert(node, layer.name)

    def _insert_dequant(self, layer: FusedLayer, value: str, deq_scale: np.ndarray, is_wide: bool) -> QuantizedName:
        scope = self._editor.unique_scope(f"{node_scope(layer.name)}dequant", [ascend_ops.DEQUANT])
        if is_wide:
            value = self._cast(value, tf.float64, tf.float32)
            self._inside.add(value)
        node = ascend_ops.dequant_node(
            f"{scope}/{ascend_ops.DEQUANT}",
            value,
            self._insert_const(ascend_ops.deq_scale_node(self._short_name("d"), deq_scale)),
            layer.op.window(self._editor.node(layer.name)),
            layer.data_format,
        )
        name = self._insert(node, layer.name)
        self._values[name] = self._plan.fused.tail_of(layer.name)
        self._inside.add(name)
        return name

    def _keep_output_name(self, output: str, dequantized: str) -> None:
        """Gives the name of an output to the dequantized value, and renames the node inside the layer that had it."""
        editor = self._editor
        inner = editor.unique_name(f"{output}/{INSIDE_OUTPUT}")
        editor.rename(output, inner)
        editor.redirect({output: inner})
        identity = make_node(output, "Identity", [dequantized], T=tf.float32)
        editor.add(identity, like=inner)
        self._origins[QuantizedName(inner)] = self._origins.pop(QuantizedName(output), ())
        self._origins[QuantizedName(output)] = (OriginalName(output),)
        self._values[QuantizedName(output)] = FusedName(output)


def _prepared(name: FusedName, prepared: Collection[PreparedName]) -> PreparedName | None:
    """Returns the prepared node that has the value of a fused one; None if none has."""
    return PreparedName(name) if PreparedName(name) in prepared else None
