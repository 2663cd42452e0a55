"""Reads the layers of a quantized model from its nodes (spec section 8.3).

    x -> AscendQuant -> layer(AscendWeightQuant(int8 weights)) -> [BiasAdd] -> AscendDequant
    x, y -> AscendQuant, AscendQuant -> product -> AscendDequant

In 16 bits a Cast stands between, which takes the layer and its sums to float64 (see ``builder``).
Integer kernels, exports and comparisons all read layers here.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.names import LayerName, QuantizedName
from amct_tensorflow.graph.nodes import BARRIER
from amct_tensorflow.graph.view import GraphView, NamedGraph, attribute, data_inputs
from amct_tensorflow.model.model_file import read_model
from amct_tensorflow.ops import OP_TYPES, Quantizable
from amct_tensorflow.quantize.algorithms.activation_factors import ACTIVATION_BITS, INT8_BITS, ActivationFactors
from amct_tensorflow.quantize.quantized import ascend_ops

# Where the node of a layer moves whose name an output takes: ``<output>/quantized``.
INSIDE_OUTPUT = "quantized"


@dataclass(frozen=True)
class Quantizer:
    """An AscendQuant.

    Attributes:
        name: the node.
        data: its input, as GraphDef writes it.
        grid: scale, offset and bits.
    """

    name: QuantizedName
    data: str
    grid: ActivationFactors


@dataclass(frozen=True, eq=False)
class QuantizedLayer:
    """A quantized layer: ``(sum of (x_q - offset) * weights + bias) * deq_scale``.

    Attributes:
        node: the op itself, as the quantized model has it.
        key: its name in the configuration, which differs from that of ``node`` where an output has taken it.
        op_type: what is known of its op type, in the form that its operands give it.
        quantizers: the AscendQuants that it reads: two of a product of computed operands, else one.
        sums: the node that yields the integer sums, bias included.
        dequantizer: its AscendDequant.
        deq_scale: float32, [Cout] or [1].
        weights: int8, in the layout of the op type; None for an op without.
        bias: [Cout], int32, or int64 beside activations of 16 bits; None without.
    """

    node: NodeDef
    key: LayerName
    op_type: Quantizable
    quantizers: tuple[Quantizer, ...]
    sums: QuantizedName
    dequantizer: QuantizedName
    deq_scale: np.ndarray
    weights: np.ndarray | None
    bias: np.ndarray | None

    @property
    def name(self) -> QuantizedName:
        """The name of its node."""
        return QuantizedName(self.node.name)

    @property
    def is_product(self) -> bool:
        """Whether it multiplies two computed operands."""
        return self.op_type.second_input is not None

    @property
    def quantizer(self) -> Quantizer:
        """The AscendQuant that it reads; of two, that of its first operand."""
        return self.quantizers[0]

    @property
    def input_grid(self) -> ActivationFactors:
        """Scale, offset and bits of its input."""
        return self.quantizer.grid

    @cached_property
    def weight_scale(self) -> np.ndarray:
        """The step of the weights, or of a second operand, float32, [Cout] or [1]."""
        return np.asarray(self.deq_scale / np.float32(self.input_grid.scale), np.float32)

    @cached_property
    def float_weights(self) -> np.ndarray:
        """The dequantized weights, float32; a layer without weights has none."""
        assert self.weights is not None
        return np.asarray(self.weights * self.op_type.along_channels(self.weights, self.weight_scale), np.float32)

    @cached_property
    def float_bias(self) -> np.ndarray:
        """The dequantized bias, float32 [Cout]; a layer without a bias has none."""
        assert self.bias is not None
        return np.asarray(self.bias * self.deq_scale.astype(np.float64), np.float32)

    @property
    def channels(self) -> int:
        """Number of output channels of a layer with weights."""
        assert self.weights is not None
        return self.op_type.channels(self.weights)


@dataclass(frozen=True, eq=False)
class QuantizedModel:
    """A quantized model in a file.

    Attributes:
        path: the file.
        view: its nodes.
        layers: its quantized layers, each after those that it depends on.
    """

    path: Path
    view: NamedGraph[QuantizedName]
    layers: tuple[QuantizedLayer, ...]


def read_quantized_model(path: str | Path) -> QuantizedModel:
    """Reads a quantized model.

    Raises:
        ModelError: it cannot be read, nothing in it is quantized, or it was changed since it was written.
    """
    view = read_model(path)
    layers = read_layers(view)
    if not layers:
        raise ModelError(f"{path} holds no quantized layer. Give what a run has written: PREFIX_quantized.pb.")
    return QuantizedModel(Path(path), cast(NamedGraph[QuantizedName], view), tuple(layers))


def read_layers(view: GraphView) -> list[QuantizedLayer]:
    """Returns the quantized layers of a quantized graph, each after those that it depends on.

    Raises:
        ModelError: the model was changed since it was written.
    """
    return [_read_layer(view, node) for node in view.topological() if node.op == ascend_ops.DEQUANT]


def read_quantizer(node: NodeDef) -> Quantizer:
    """Returns an AscendQuant, whose attribute ``scale`` is the inverse of the step, in float32.

    Raises:
        ModelError: its attributes are no scale, offset and bits.
    """
    inverse, offset = np.float32(attribute(node, "scale").f), attribute(node, "offset").f
    num_bits = int(attribute(node, "quant_bits").i) if "quant_bits" in node.attr else INT8_BITS
    if not (np.isfinite(inverse) and inverse > 0 and -128 <= offset <= 127 and num_bits in ACTIVATION_BITS):
        raise damaged(node.name)
    grid = ActivationFactors(float(np.float32(1) / inverse), int(offset), num_bits)
    return Quantizer(QuantizedName(node.name), str(node.input[0]), grid)


def stored_weights(view: GraphView, text: str) -> np.ndarray | None:
    """Returns the constant weights at an input: int8 of a quantized layer, floats of another; else None."""
    source = _before_cast(view, view.producer(text))
    return view.constant(source.input[0] if source.op == ascend_ops.WEIGHT_QUANT and source.input else text)


def damaged(name: str) -> ModelError:
    """Returns the error to raise for a node that is no part of a quantized layer as the package writes it."""
    return ModelError(
        f"{name!r} of the quantized model is no part of a quantized layer as this version writes it; the file is "
        "damaged, or another version has made it. Quantize the model again."
    )


def _read_layer(view: GraphView, dequantizer: NodeDef) -> QuantizedLayer:
    """Returns the layer in front of an AscendDequant."""
    inputs = data_inputs(dequantizer.input)
    packed = view.constant(inputs[1]) if len(inputs) == 2 else None
    if packed is None:
        raise damaged(dequantizer.name)
    node = sums = _before_cast(view, view.producer(inputs[0]))
    for op in ("BiasAdd", BARRIER):
        node = view.producer(node.input[0]) if node.op == op else node
    op_type = _form(view, node)
    sources = [] if op_type is None else [_source(view, node, index) for index in op_type.operands]
    quantizers = [
        read for source in sources if source is not None if (read := _before_cast(view, source)).op == ascend_ops.QUANT
    ]
    if op_type is None or len(quantizers) != len(op_type.operands):
        raise damaged(dequantizer.name)
    return QuantizedLayer(
        node=node,
        key=_key(view, node, dequantizer),
        op_type=op_type,
        quantizers=tuple(map(read_quantizer, quantizers)),
        sums=QuantizedName(sums.name),
        dequantizer=QuantizedName(dequantizer.name),
        deq_scale=ascend_ops.unpack_deq_scale(packed),
        weights=None if op_type.weight_input is None else _weights(view, node, op_type.weight_input),
        bias=_bias(view, sums) if sums.op == "BiasAdd" else None,
    )


def _form(view: GraphView, node: NodeDef) -> Quantizable | None:
    """Returns what is known of the op type of a layer: it is a product of two operands if both are quantized alike."""
    op_type = OP_TYPES.get(node.op)
    if op_type is None or op_type.of_computed is None:
        return op_type
    sources = [_source(view, node, index) for index in op_type.of_computed.operands]
    return op_type.with_operands(computed=all(each is not None and each.op == ascend_ops.QUANT for each in sources))


def _key(view: GraphView, node: NodeDef, dequantizer: NodeDef) -> LayerName:
    """Returns the key of a layer: that of its node, or of the output behind it that has taken its name."""
    outputs = (str(reader.name) for reader in view.readers(dequantizer.name) if reader.op == "Identity")
    return LayerName(next((name for name in outputs if node.name.startswith(f"{name}/{INSIDE_OUTPUT}")), node.name))


def _before_cast(view: GraphView, node: NodeDef) -> NodeDef:
    """Returns what a Cast reads; a node of any other op itself."""
    return view.producer(node.input[0]) if node.op == "Cast" else node


def _source(view: GraphView, node: NodeDef, index: int) -> NodeDef | None:
    """Returns the node that yields an input of a node; None if it has no such input."""
    inputs = data_inputs(node.input)
    return view.producer(inputs[index]) if index < len(inputs) else None


def _weights(view: GraphView, layer: NodeDef, index: int) -> np.ndarray:
    weights = stored_weights(view, layer.input[index]) if _source(view, layer, index) is not None else None
    if weights is None or weights.dtype != np.int8:
        raise damaged(layer.name)
    return weights


def _bias(view: GraphView, bias_add: NodeDef) -> np.ndarray:
    bias = view.constant(bias_add.input[1])
    if bias is None:
        raise damaged(bias_add.name)
    return np.asarray(bias, np.int32 if bias.dtype == np.float32 else np.int64)
