"""``<prefix>_quant.json``: which original nodes every node of the quantized model stands for (spec section 5.2)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.errors import ContentError, ModelError
from amct_tensorflow.graph.names import OriginalName, PreparedName, QuantizedName
from amct_tensorflow.graph.view import CONTROL, GraphView, full_tensor_name, parse_tensor_name
from amct_tensorflow.io.contents import expect, parse_json
from amct_tensorflow.quantize.quantized.ascend_ops import QUANT
from amct_tensorflow.quantize.quantized.builder import QuantizedGraph

_ORIGINALS = "_datadump_original_op_names"
_VALUE = "_datadump_origin_name"
# Keys of our own, for nodes that the model's file hides in a function: here they are called as inlining calls them.
_HIDDEN_VALUE = "inlined_origin_name"
_REPEATED = "inlined_activation_name"


@dataclass(frozen=True)
class NodeMap:
    """What is known of the nodes of a quantized model.

    Attributes:
        originals: per node, the original nodes it stands for.
        values: per node whose output reproduces that of a node of the original model with its functions inlined, this
            node.
        absorbed: per AscendQuant that repeats activations, the last of them, likewise; None if that has other values.
        outputs: the output operators that were asked for; None if that was not noted, as by earlier versions.
    """

    originals: Mapping[QuantizedName, tuple[OriginalName, ...]]
    values: Mapping[QuantizedName, PreparedName]
    absorbed: Mapping[QuantizedName, PreparedName | None]
    outputs: tuple[str, ...] | None


def read_node_map(path: str | Path, view: GraphView) -> NodeMap:
    """Reads the node map of a quantized model.

    Args:
        path: the file.
        view: the model that it has to fit.

    Raises:
        ModelError: there is no such file, it holds no node map, or that of another model.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(
            f"Node map {path} cannot be read ({error.strerror or error}). It tells which tensors of the two models "
            "correspond, and is written beside the quantized model; give its path with --node_map."
        ) from error
    try:
        graph = _graph(parse_json(data))
        operations = _operations(graph)
        outputs = _outputs(graph)
        originals = {_name(operation): tuple(_originals(operation)) for operation in operations}
        values = {_name(operation): PreparedName(value) for operation in operations for value in _value(operation)}
        absorbed = {_name(operation): name for operation in operations for name in _absorbed(operation)}
    except ContentError as error:
        raise ModelError(f"{path} holds no node map: {error}. Give the one written with the model.") from error
    if originals.keys() != view.nodes.keys():
        raise ModelError(
            f"{path} lists other nodes than the quantized model has. Give the one written together with it."
        )
    if not set(outputs or ()) <= view.nodes.keys():
        raise ModelError(f"{path} names outputs that the quantized model does not have. Give the one written with it.")
    return NodeMap(originals, values, absorbed, outputs)


def _graph(document: object) -> dict[str, Any]:
    graphs = expect(list, expect(dict, document, "the document").get("graph"), "graph")
    return expect(dict, graphs[0] if graphs else None, "the first graph")


def _outputs(graph: dict[str, Any]) -> tuple[str, ...] | None:
    if "output" not in graph:
        return None
    listed = (expect(str, each, "an output") for each in expect(list, graph["output"], "output"))
    return tuple(parse_tensor_name(each).node for each in listed)


def _operations(graph: dict[str, Any]) -> list[dict[str, Any]]:
    return [expect(dict, operation, "an op") for operation in expect(list, graph.get("op"), "op")]


def _name(operation: dict[str, Any]) -> QuantizedName:
    return QuantizedName(expect(str, operation.get("name"), "the name of an op"))


def _originals(operation: dict[str, Any]) -> list[OriginalName]:
    value = _attributes(operation).get(_ORIGINALS)
    if value is None:  # it is called as the original
        return [OriginalName(_name(operation))]
    names = expect(list, expect(dict, value.get("list"), "list").get("s", []), "s")
    return [OriginalName(expect(str, name, "an original name")) for name in names]


def _value(operation: dict[str, Any]) -> list[str]:
    """Returns the node whose output 0 an op reproduces, if there is one."""
    described = expect(list, operation.get("output_desc", []), "output_desc")
    found = [_attributes(expect(dict, each, "an output")).get(_VALUE) for each in described[:1]]
    hidden = [operation[_HIDDEN_VALUE]] if _HIDDEN_VALUE in operation else []
    return [expect(str, value, "s") for value in (*(each.get("s") for each in found if each is not None), *hidden)]


def _absorbed(operation: dict[str, Any]) -> list[PreparedName | None]:
    """Returns the activation in whose place an AscendQuant reads, if it repeats one."""
    if _REPEATED in operation:
        name = operation[_REPEATED]
        return [None if name is None else PreparedName(expect(str, name, _REPEATED))]
    # An activation that is not hidden in a function has the name of an original one.
    return [PreparedName(name) for name in _originals(operation)[-1:]] if operation.get("type") == QUANT else []


def _attributes(holder: dict[str, Any]) -> dict[str, dict[str, Any]]:
    listed = [expect(dict, each, "an attribute") for each in expect(list, holder.get("attr", []), "attr")]
    return {expect(str, each.get("key"), "key"): expect(dict, each.get("value"), "value") for each in listed}


def dump_node_map(quantized: QuantizedGraph) -> str:
    """Returns the node map as JSON in the shape that graph comparison tools read: that of the device's graphs.

    There ``output`` names the tensors that a graph yields, which the original toolkit leaves out.
    """
    operations = [
        _operation(index, node, quantized.origins.get(node.name, (OriginalName(node.name),)), quantized)
        for index, node in enumerate(quantized.graph_def.node)
    ]
    outputs = [full_tensor_name(name) for name in quantized.outputs]
    return json.dumps({"graph": [{"name": "quantized", "output": outputs, "op": operations}]}, indent=1)


def _operation(
    index: int, node: NodeDef, origins: tuple[OriginalName, ...], quantized: QuantizedGraph
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "id": index,
        "name": node.name,
        "type": node.op,
        "input": [_edge(text) for text in node.input],
        "attr": [{"key": _ORIGINALS, "value": {"list": {"s": list(origins)}}}],
    }
    if node.name in quantized.absorbed:
        repeated = quantized.absorbed[node.name]
        if not origins or repeated is None or origins[-1] != OriginalName(repeated):
            operation[_REPEATED] = repeated
    value = quantized.values.get(node.name)
    if value in quantized.hidden:
        operation[_HIDDEN_VALUE] = value
    elif value is not None:
        operation["output_desc"] = [
            {
                "attr": [
                    {"key": _VALUE, "value": {"s": value}},
                    {"key": "_datadump_origin_output_index", "value": {"i": 0}},
                ]
            }
        ]
    return operation


def _edge(text: str) -> str:
    name = parse_tensor_name(text)
    return f"{name.node}:{CONTROL if name.port == CONTROL else name.port}"
