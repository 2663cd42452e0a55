"""Finds out whether all readers of a layer quantize its values alike, and how."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from tensorflow.core.framework.node_def_pb2 import NodeDef

from amct_tensorflow.graph.view import GraphView, attribute
from amct_tensorflow.ops.effects import as_clip
from amct_tensorflow.quantize.quantized.ascend_ops import QUANT

HIGHEST_BYTE = 255


class Reading(NamedTuple):
    """The quantization that all readers of a layer share; its zero point is 0.

    Attributes:
        quantizers: their names.
        scale: their factor.
        highest: the highest byte that they can yield.
    """

    quantizers: tuple[str, ...]
    scale: float
    highest: int


def find_reading(view: GraphView, dequantizer: str, outputs: Collection[str]) -> Reading | None:
    """Returns the quantization that all readers of a layer share; None if any of them needs other values.

    Args:
        view: the quantized model.
        dequantizer: the AscendDequant of the layer.
        outputs: nodes whose own value is requested.
    """
    readers, bound = only_readers(view, dequantizer, outputs), np.inf
    # A Relu or Relu6 may stand between a layer and quantizers with zero point 0.
    if len(readers) == 1 and (clips := as_clip(readers[0], lambda _: None)) is not None:
        bound = clips[0].highest
        readers = only_readers(view, readers[0].name, outputs)
    scales = {attribute(reader, "scale").f for reader in readers if _takes_unsigned(reader)}
    if len(scales) != 1 or not all(map(_takes_unsigned, readers)):
        return None
    scale = scales.pop()
    highest = min(np.rint(np.float32(bound) * np.float32(scale)), HIGHEST_BYTE)
    return Reading(tuple(dict.fromkeys(str(reader.name) for reader in readers)), scale, int(highest))


def only_readers(view: GraphView, name: str, outputs: Collection[str]) -> list[NodeDef]:
    """Returns the nodes that read a node; none if its own value is requested, or something waits for it."""
    edges = view.consumers(name)
    if name in outputs or any(map(view.is_control, edges)):
        return []
    return [edge.node for edge in edges]


def _takes_unsigned(node: NodeDef) -> bool:
    """Tells whether a node is a quantizer whose zero point is the byte 0."""
    return bool(node.op == QUANT and len(node.input) == 1 and attribute(node, "offset").f == -128)
