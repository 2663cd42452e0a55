"""``<prefix>_quant.json``: which original nodes every node of the quantized model stands for (spec section 5.2)."""

import json
from collections.abc import Mapping
from typing import Any

from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import CONTROL, parse_tensor_name
from amct_tensorflow.quantized.builder import QuantizedGraph


def dump_node_map(quantized: QuantizedGraph) -> str:
    """Returns the node map as JSON in the shape that graph comparison tools read."""
    operations = [
        _operation(index, node, quantized.origins.get(node.name, (node.name,)), quantized.values)
        for index, node in enumerate(quantized.graph_def.node)
    ]
    return json.dumps({"graph": [{"name": "quantized", "op": operations}]}, indent=1)


def _operation(index: int, node: NodeDef, origins: tuple[str, ...], values: Mapping[str, str]) -> dict[str, Any]:
    operation = {
        "id": index,
        "name": node.name,
        "type": node.op,
        "input": [_edge(text) for text in node.input],
        "attr": [{"key": "_datadump_original_op_names", "value": {"list": {"s": list(origins)}}}],
    }
    if node.name in values:
        operation["output_desc"] = [
            {
                "attr": [
                    {"key": "_datadump_origin_name", "value": {"s": values[node.name]}},
                    {"key": "_datadump_origin_output_index", "value": {"i": 0}},
                ]
            }
        ]
    return operation


def _edge(text: str) -> str:
    name = parse_tensor_name(text)
    return f"{name.node}:{CONTROL if name.port == CONTROL else name.port}"
