"""Which tensors of a quantized model and of the float model it was made from correspond."""

from dataclasses import dataclass
from pathlib import Path

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.view import GraphView, data_inputs, parse_tensor_name
from amct_tensorflow.model.model_file import read_model
from amct_tensorflow.quantize.quantized import ascend_ops
from amct_tensorflow.quantize.quantized.layer_nodes import nodes_of_layer, quantizer_of
from amct_tensorflow.quantize.quantized.model_files import MODEL_ENDING, node_map_of
from amct_tensorflow.quantize.quantized.node_map import NodeMap, read_node_map


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer of a quantized model.

    Attributes:
        name: its key in the configuration.
        op_type: its op type.
        quantizer: its AscendQuant.
        read: the tensor of the prepared original, in full, that the AscendQuant stands behind; None if none has its
            value.
        result: the node of the quantized model whose output 0 is compared: the AscendDequant, or what shapes its value.
        value: the node of the prepared original whose output 0 that reproduces; None if there is none.
    """

    name: str
    op_type: str
    quantizer: str
    read: str | None
    result: str
    value: str | None

    @property
    def is_comparable(self) -> bool:
        """Whether the layer can be looked at by itself."""
        return self.read is not None and self.value is not None


@dataclass(frozen=True, eq=False)
class QuantizedModel:
    """A quantized model, and what its tensors correspond to.

    Attributes:
        view: its nodes.
        path: its file.
        layers: its quantized layers, in its order.
        outputs: the output operators that it was made for; where that was not noted, its nodes that are nodes of the
            original model, too, and that nothing reads.
    """

    view: GraphView
    path: Path
    layers: tuple[QuantizedLayer, ...]
    outputs: tuple[str, ...]


def read_quantized(path: str | Path, node_map: str | Path | None = None) -> QuantizedModel:
    """Reads a quantized model.

    Args:
        path: the file, ``<prefix>_quantized.pb``.
        node_map: its node map; None for ``<prefix>_quant.json`` beside it.

    Raises:
        ModelError: the model or its node map cannot be read, or nothing in the model is quantized.
    """
    path, view = Path(path), read_model(path)
    dequantizers = [node.name for node in view.topological() if node.op == ascend_ops.DEQUANT]
    if not dequantizers:
        raise ModelError(f"{path} holds no quantized layer. Give the quantized model after the original one.")
    beside = node_map_of(path)
    if node_map is None and beside is None:
        raise ModelError(f"The name of {path} does not end in {MODEL_ENDING}; give its node map with --node_map.")
    found = read_node_map(node_map or beside or path, view)
    layers = tuple(_layer(view, found, name) for name in dequantizers)
    ends = tuple(name for name in view.nodes if name in found.originals[name] and not view.consumers(name))
    return QuantizedModel(view, path, layers, found.outputs or ends)


def _layer(view: GraphView, node_map: NodeMap, dequantizer: str) -> QuantizedLayer:
    layer = nodes_of_layer(view, dequantizer)[-1]
    quantizer = quantizer_of(view, layer)
    if quantizer is None:
        raise ModelError(f"In the quantized model, {dequantizer!r} stands behind no AscendQuant; the file is damaged.")
    result, value = _result(view, node_map, dequantizer)
    name = _name(node_map, layer, dequantizer)
    return QuantizedLayer(name, layer.op, quantizer.name, _read(view, node_map, quantizer), result, value)


def _name(node_map: NodeMap, layer: NodeDef, dequantizer: str) -> str:
    """Returns the name that a layer has in the float model: where its own value is an output, that has taken it."""
    value = node_map.values.get(dequantizer)
    return str(value if node_map.originals[layer.name][:1] == (value,) else layer.name)


def _read(view: GraphView, node_map: NodeMap, quantizer: NodeDef) -> str | None:
    """Returns the tensor of the prepared original in whose place a quantizer reads."""
    if quantizer.name in node_map.absorbed:
        return f"{node_map.absorbed[quantizer.name]}:0"
    source = parse_tensor_name(quantizer.input[0])
    value = node_map.values.get(source.node)
    return None if value is None else f"{value}:{source.port}"


def _result(view: GraphView, node_map: NodeMap, dequantizer: str) -> tuple[str, str | None]:
    """Follows the value of a layer until it reproduces an original one, as long as nothing else goes into it."""
    node = view.nodes[dequantizer]
    while node.name not in node_map.values:
        readers = [edge.node for edge in view.consumers(node.name) if not view.is_control(edge)]
        if len(readers) != 1 or readers[0].op == ascend_ops.QUANT or _varying_inputs(view, readers[0]) != 1:
            return dequantizer, None
        node = readers[0]
    return str(node.name), node_map.values[node.name]


def _varying_inputs(view: GraphView, node: NodeDef) -> int:
    return sum(view.constant(text) is None for text in data_inputs(node.input))
