"""Finds the tensors of a float model that correspond to those of its quantized model."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.names import LayerName, OriginalName, PreparedName, QuantizedName
from amct_tensorflow.graph.view import GraphView, data_inputs, parse_tensor_name
from amct_tensorflow.ops import has
from amct_tensorflow.ops.channels import ChannelMove
from amct_tensorflow.quantize.quantized import ascend_ops
from amct_tensorflow.quantize.quantized.model_files import MODEL_ENDING, node_map_of
from amct_tensorflow.quantize.quantized.node_map import NodeMap, read_node_map
from amct_tensorflow.quantize.quantized.quantized_layer import QuantizedLayer, Quantizer, read_quantized_model

# The factors of values that are not divided.
_UNDIVIDED = np.ones((), np.float32)


@dataclass(frozen=True, eq=False)
class MappedLayer:
    """A quantized layer, and the tensors of the prepared original that correspond to its own.

    Attributes:
        name: its key in the configuration.
        op_type: its op type.
        quantized: the layer as the quantized model has it.
        quantizer: its AscendQuant.
        read: full name of the tensor of the prepared original that the AscendQuant quantizes; None if none has its
            value.
        read_factors: by what that is divided in the quantized model, in a shape that is broadcast; 1 if it is not.
        result: the node of the quantized model whose output 0 is compared: the AscendDequant, or one that reshapes its
            value.
        value: the node of the prepared original whose output 0 ``result`` reproduces; None if there is none.
        value_factors: by what that is divided in ``result``.
    """

    name: LayerName
    op_type: str
    quantized: QuantizedLayer
    quantizer: QuantizedName
    read: str | None
    result: QuantizedName
    value: PreparedName | None
    read_factors: np.ndarray
    value_factors: np.ndarray

    @property
    def is_comparable(self) -> bool:
        """Whether the layer can be compared alone."""
        return self.read is not None and self.value is not None


@dataclass(frozen=True, eq=False)
class MappedModel:
    """A quantized model, and the corresponding tensors of its float model.

    Attributes:
        view: its nodes.
        path: its file.
        layers: its quantized layers, in its order.
        outputs: the output operators that it was made for; if the node map does not list them, the nodes that nothing
            reads and that the original model has, too.
    """

    view: GraphView
    path: Path
    layers: tuple[MappedLayer, ...]
    outputs: tuple[str, ...]

    def with_float16_values(self) -> "MappedModel":
        """Returns the model as Ascend 910B hands its values on: rounded to float16 behind each AscendDequant."""
        return replace(self, view=GraphView(ascend_ops.with_float16_values(self.view.graph_def)))


def read_mapped_model(path: str | Path, node_map: str | Path | None = None) -> MappedModel:
    """Reads a quantized model and its node map.

    Args:
        path: the file, ``<prefix>_quantized.pb``.
        node_map: its node map; None for ``<prefix>_quant.json`` beside it.

    Raises:
        ModelError: the model or its node map cannot be read, or nothing in the model is quantized.
    """
    quantized = read_quantized_model(path)
    path, view = quantized.path, quantized.view
    beside = node_map_of(path)
    if node_map is None and beside is None:
        raise ModelError(f"The name of {path} does not end in {MODEL_ENDING}; give its node map with --node_map.")
    found = read_node_map(node_map or beside or path, view)
    layers = tuple(_map(view, found, layer) for layer in quantized.layers)
    names = map(QuantizedName, view.nodes)
    ends = tuple(name for name in names if OriginalName(name) in found.originals[name] and not view.consumers(name))
    return MappedModel(view, path, layers, found.outputs or ends)


def _map(view: GraphView, node_map: NodeMap, layer: QuantizedLayer) -> MappedLayer:
    result, value, value_factors = _result(view, node_map, layer.dequantizer)
    read, read_factors = _read(node_map, layer.quantizer)
    return MappedLayer(
        name=layer.key,
        op_type=str(layer.node.op),
        quantized=layer,
        quantizer=layer.quantizer.name,
        read=read,
        result=result,
        value=value,
        read_factors=read_factors,
        value_factors=value_factors,
    )


def _read(node_map: NodeMap, quantizer: Quantizer) -> tuple[str | None, np.ndarray]:
    """Returns the tensor of the prepared original that a quantizer quantizes, and by what it is divided before."""
    if (divided := node_map.divided.get(quantizer.name)) is not None:
        return divided.tensor, divided.factors
    if quantizer.name in node_map.absorbed:
        activation = node_map.absorbed[quantizer.name]
        return None if activation is None else f"{activation}:0", _UNDIVIDED
    source = parse_tensor_name(quantizer.data)
    value = node_map.values.get(QuantizedName(source.node))
    return None if value is None else f"{value}:{source.port}", _UNDIVIDED


def _result(
    view: GraphView, node_map: NodeMap, dequantizer: QuantizedName
) -> tuple[QuantizedName, PreparedName | None, np.ndarray]:
    """Follows the value of a layer to a node that reproduces an original one; nothing else may go into it.

    Returns this node, the original one, and by what the value is divided.
    """
    node = view.nodes[dequantizer]
    while node.name not in node_map.values and node.name not in node_map.divided:
        readers = view.readers(node.name)
        if len(readers) != 1 or readers[0].op == ascend_ops.QUANT or _varying_inputs(view, readers[0]) != 1:
            return dequantizer, None, _UNDIVIDED
        node = readers[0]
    name = QuantizedName(node.name)
    if (divided := node_map.divided.get(name)) is not None:
        return name, PreparedName(parse_tensor_name(divided.tensor).node), divided.factors
    return name, node_map.values[name], _UNDIVIDED


def _varying_inputs(view: GraphView, node: NodeDef) -> int:
    """Returns how many inputs have values of the data; what moves channels has one, and may compute where to."""
    inputs = data_inputs(node.input)
    return sum(view.constant(text) is None for text in (inputs[:1] if has(node.op, ChannelMove) else inputs))
