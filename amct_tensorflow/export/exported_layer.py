"""A layer of a quantized model as it computes with integers, whatever runtime does it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.view import GraphView, attribute
from amct_tensorflow.ops import OP_TYPES, Quantizable
from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors
from amct_tensorflow.quantize.quantized import ascend_ops
from amct_tensorflow.quantize.quantized.layer_nodes import nodes_of_layer, quantizer_of


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """A quantized layer: ``(sum of (x_q - offset) * weights + bias) * deq_scale``.

    Attributes:
        name: its node, in the quantized model and in the original one.
        op_type: what is known of its op type.
        quantizer: the AscendQuant that it reads.
        dequantizer: its AscendDequant.
        tail: the node that yields the integer sums: its BiasAdd, or the layer itself.
        input_grid: scale and offset of what it reads.
        deq_scale: float32, [Cout] or [1].
        weights: int8, in the layout of the op type; None for an op without.
        bias: int32, [Cout]; None without.
    """

    name: str
    op_type: Quantizable
    quantizer: str
    dequantizer: str
    tail: str
    input_grid: ActivationFactors
    deq_scale: np.ndarray
    weights: np.ndarray | None
    bias: np.ndarray | None

    @cached_property
    def weight_scale(self) -> np.ndarray:
        """The step of the weights, float32, [Cout] or [1]."""
        return np.asarray(self.deq_scale / np.float32(self.input_grid.scale), np.float32)

    @cached_property
    def float_weights(self) -> np.ndarray:
        """What the integers of the weights stand for, float32; a layer without weights has none."""
        assert self.weights is not None
        return np.asarray(self.weights * self.op_type.along_channels(self.weights, self.weight_scale), np.float32)

    @cached_property
    def float_bias(self) -> np.ndarray:
        """What the integers of the bias stand for, float32 [Cout]; a layer without a bias has none."""
        assert self.bias is not None
        return np.asarray(self.bias * self.deq_scale.astype(np.float64), np.float32)

    @property
    def channels(self) -> int:
        """Number of output channels of a layer with weights."""
        assert self.weights is not None
        return self.op_type.channels(self.weights)


def read_integer_layers(view: GraphView) -> list[IntegerLayer]:
    """Returns the quantized layers of a quantized model, each after those that it depends on.

    Raises:
        ModelError: the model was changed since it was written.
    """
    return [_read(view, node) for node in view.topological() if node.op == ascend_ops.DEQUANT]


def grid_of(quantizer: NodeDef) -> ActivationFactors:
    """Returns scale and offset of an AscendQuant, whose attribute ``scale`` is the inverse in float32.

    Raises:
        ModelError: they are none.
    """
    inverse, offset = np.float32(attribute(quantizer, "scale").f), attribute(quantizer, "offset").f
    if not (np.isfinite(inverse) and inverse > 0 and -128 <= offset <= 127):
        raise damaged(quantizer.name)
    return ActivationFactors(float(np.float32(1) / inverse), int(offset))


def _read(view: GraphView, dequantizer: NodeDef) -> IntegerLayer:
    if len(dequantizer.input) < 2:
        raise damaged(dequantizer.name)
    nodes = nodes_of_layer(view, dequantizer.name)
    layer, op_type = nodes[-1], OP_TYPES.get(nodes[-1].op)
    quantizer = quantizer_of(view, layer)
    packed = view.constant(dequantizer.input[1])
    if op_type is None or quantizer is None or packed is None:
        raise damaged(dequantizer.name)
    weights = None if op_type.weight_input is None else _weights(view, layer, op_type.weight_input)
    biased = [node for node in nodes if node.op == "BiasAdd"]
    bias = view.constant(biased[0].input[1]) if biased else None
    if biased and bias is None:
        raise damaged(biased[0].name)
    return IntegerLayer(
        name=layer.name,
        op_type=op_type,
        quantizer=quantizer.name,
        dequantizer=dequantizer.name,
        tail=nodes[0].name,
        input_grid=grid_of(quantizer),
        deq_scale=ascend_ops.unpack_deq_scale(packed),
        weights=weights,
        bias=None if bias is None else np.asarray(bias, np.int32),
    )


def _weights(view: GraphView, layer: NodeDef, index: int) -> np.ndarray:
    """Returns the int8 weights behind an input of a layer."""
    source = view.producer(layer.input[index]) if index < len(layer.input) else layer
    weights = view.constant(source.input[0]) if source.op == ascend_ops.WEIGHT_QUANT and source.input else None
    if weights is None or weights.dtype != np.int8:
        raise damaged(layer.name)
    return weights


def damaged(name: str) -> ModelError:
    """Returns the error to raise where a node is no part of a quantized layer as we write it."""
    return ModelError(
        f"{name!r} of the quantized model is no part of a quantized layer as this version writes it; the file is "
        "damaged, or another version has made it. Quantize the model again."
    )
